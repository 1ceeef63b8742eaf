"""A small sweep for tests, which does not run."""

from __future__ import annotations

from dataclasses import replace

from rllib_odac.experiments.spec import RunSpec
from rllib_odac.experiments.sweeps.space import read_space
from rllib_odac.experiments.sweeps.spec import SweepSpec
from rllib_odac.experiments.sweeps.sweep import Sweep

SPACE = {"lr": {"log_uniform": [1e-4, 1e-2]}, "hidden": {"choice": [[32, 32], [64]]}}


def make_spec(**changes) -> SweepSpec:
    spec = SweepSpec(RunSpec("odac/Box2D-v0", steps=1000), read_space(SPACE))
    return replace(spec, **changes)


def make_sweep(tmp_path, **changes) -> Sweep:
    return Sweep(**({"spec": make_spec(), "name": "one", "storage": str(tmp_path)} | changes))
