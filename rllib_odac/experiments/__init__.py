"""Runs, studies and sweeps: what is asked for, where it lies and what came out."""
