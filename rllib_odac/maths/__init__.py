"""The equations of ODAC as pure functions, and the exact solution in finite MDPs."""
