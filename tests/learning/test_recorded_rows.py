"""The same seed gives the rows that were recorded; `recorded/README.md` says how."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from rllib_odac import Run, RunSpec

pytestmark = pytest.mark.learning

RECORDED = Path(__file__).parent / "recorded"
TASKS = {
    "box2d": {"env": "odac/Box2D-v0", "steps": 2000, "evaluate_every": 500},
    "fetch_reach": {"env": "FetchReach-v4", "steps": 1200, "evaluate_every": 400},
}
CASES = [
    pytest.param(
        task,
        objective,
        marks=[] if objective == "odac" else [slow],
    )
    for slow in [pytest.mark.slow]
    for task in TASKS
    for objective in ("odac", "sac", "uvd")
]


def machine() -> dict[str, str]:
    """What floating-point results depend on."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    lines = dict(line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    cpu = {name.strip(): value.strip() for name, value in lines.items()}
    return {
        "cpu": " ".join(cpu.get(key, "?") for key in ("model name", "cpu family", "model")),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }


@pytest.mark.parametrize(("task", "objective"), CASES)
def test_rows_are_those_recorded(ray_cluster, tmp_path, task, objective):
    spec = RunSpec(
        objective=objective, seed=0, evaluation_episodes=10, final_episodes=20, **TASKS[task]
    )
    torch.set_num_threads(1)
    Run(spec, tmp_path / "run").train()
    expected = pd.read_csv(RECORDED / f"{task}-{objective}.csv")
    rows = pd.read_csv(tmp_path / "run" / "progress.csv")[list(expected)]
    if machine() == json.loads((RECORDED / "machine.json").read_text()):
        pd.testing.assert_frame_equal(rows, expected, check_exact=True)
        return
    # Elsewhere products of matrices are rounded differently, which training then multiplies: what
    # comes before the first update is the same, and what comes after it has the same meaning.
    pd.testing.assert_frame_equal(rows.iloc[:1], expected.iloc[:1], rtol=1e-3)
    for name in ("iteration", "env_steps", "updates"):
        np.testing.assert_array_equal(rows[name], expected[name])
    first = rows["updates"].to_numpy().nonzero()[0][0]
    for name in ("q_value", "reward", "policy_kl", "discount", "relabelled_share"):
        ours, theirs = rows[name].iloc[first], expected[name].iloc[first]
        assert ours == pytest.approx(theirs, rel=0.3, abs=0.3), name
