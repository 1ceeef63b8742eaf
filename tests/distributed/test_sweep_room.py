"""A sweep whose trials lose their place for good says so instead of waiting for ever."""

from __future__ import annotations

import time

import pytest

from rllib_odac.experiments.spec import RunSpec
from rllib_odac.experiments.sweeps.progress import Progress
from rllib_odac.experiments.sweeps.space import read_space
from rllib_odac.experiments.sweeps.spec import SweepSpec
from rllib_odac.experiments.sweeps.sweep import Sweep, run_sweep
from rllib_odac.runtime.cluster import ROOM_TIMEOUT
from tests.conftest import starts_trials

pytestmark = [pytest.mark.distributed, pytest.mark.slow, starts_trials]


def test_trials_that_find_no_place_end_the_sweep(ray_cluster, tmp_path, monkeypatch):
    study = SweepSpec(RunSpec("odac/Box2D-v0"), read_space({"lr": {"choice": [0.001]}}))
    # As after a node that was there when the sweep began, and has been taken away.
    sweep = Sweep(study, "one", str(tmp_path), trials=2, scheduler="none", num_env_runners=64)
    monkeypatch.setenv(ROOM_TIMEOUT, "4")
    monkeypatch.setattr(Progress, "report", Progress.report)  # which the sweep sets on the class
    begun = time.monotonic()
    words = r"num_env_runners is 64 \(1 CPU each\).*has made no room within 4 s: it has 1 node with"
    with pytest.raises(ValueError, match=words):
        run_sweep(sweep)
    assert time.monotonic() - begun < 60
