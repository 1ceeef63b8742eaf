"""Sweeps: searches over hyper-parameters with Ray Tune, on a laptop or a cluster."""

from rllib_odac.experiments.sweeps.runner import Sweep, open_storage, run_sweep
from rllib_odac.experiments.sweeps.study import SweepStudy, read_study

__all__ = ["Sweep", "SweepStudy", "open_storage", "read_study", "run_sweep"]
