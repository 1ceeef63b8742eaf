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


@pytest.mark.parametrize(
    ("what", "kills", "arguments"),
    [
        ("env-runners", 4, ["--steps", 1500, "--updates-per-env-step", 0.1, "--pause", 1, 3]),
        ("driver", 2, ["--steps", 3000, "--pause", 6, 9]),
    ],
)
def test_nothing_is_lost_but_what_was_with_the_killed(tmp_path, what, kills, arguments):
    command = [CHAOS, what, "--kills", kills, *SHORT, *arguments, "--output", tmp_path]
    process = subprocess.run(
        [sys.executable, *map(str, command)],
        **{"capture_output": True, "text": True, "timeout": 300},
        check=False,
    )
    name = f"chaos_{what.replace('-', '_')}"
    assert (tmp_path / f"{name}.json").is_file(), process.stderr
    report = json.loads((tmp_path / f"{name}.json").read_text())
    assert all(report["checks"].values()), report
    assert process.returncode == 0
    rows = pd.read_csv(tmp_path / f"{name}.csv")
    assert 1 <= len(rows) <= kills
    assert report["env_steps"] >= 1500
