"""Evaluating, comparing, plotting and filming what was learned."""
