"""Processes killed at random while training: the short form of `benchmarks/chaos.py`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

pytestmark = pytest.mark.distributed

CHAOS = Path(__file__).parents[2] / "benchmarks" / "chaos.py"
SHORT = ["--env", "odac/Box2D-v0", "--least-success", 0, "--seed", 3]

SPARING = ["--steps", 1500, "--updates-per-env-step", 0.1]


@pytest.mark.parametrize(
    ("what", "kills", "arguments"),
    [
        # `test_faults.py` has kills of each kind in `make test-long`.
        pytest.param("env-runners", 4, [*SPARING, "--pause", 1, 3], marks=pytest.mark.slow),
        # whole nodes: `test_lost_node.py` has one in `make test-long`
        pytest.param(
            *("env-runners", 3, [*SPARING, "--pause", 4, 6, "--node-share", 1]),
            marks=pytest.mark.slow,
        ),
        # Ray's last process ends a minute after its driver, and each kill waits for that.
        pytest.param("driver", 2, ["--steps", 3000, "--pause", 0, 5], marks=pytest.mark.slow),
    ],
)
def test_nothing_is_lost_but_what_was_with_the_killed(tmp_path, what, kills, arguments):
    command = [CHAOS, what, "--kills", kills, *SHORT, *arguments, "--output", tmp_path]
    process = subprocess.run(
        [sys.executable, *map(str, command)],
        **{"capture_output": True, "text": True, "timeout": 300},
        check=False,
    )
    reports = list(tmp_path.glob("*.json"))
    assert reports, process.stderr
    report = json.loads(reports[0].read_text())
    assert all(report["checks"].values()), report
    assert process.returncode == 0
    rows = pd.read_csv(reports[0].with_suffix(".csv"))
    assert 1 <= len(rows) <= kills
    assert report["env_steps"] >= 1500
