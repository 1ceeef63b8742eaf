"""The driver's side of a run: requests to env runners, calls of learners, faults, the cluster."""
