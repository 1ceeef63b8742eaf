"""Sweeps: searches over hyper-parameters with Ray Tune, on a laptop or a cluster."""
