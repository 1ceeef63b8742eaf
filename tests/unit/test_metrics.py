"""What training reports: documented, measured as it says, and written for TensorBoard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from typer.testing import CliRunner

from rllib_odac import metrics
from rllib_odac.cli import app
from rllib_odac.experiments.tensorboard import open_writer, write_scalars
from rllib_odac.metrics import METRICS
from tests.made_up import make_learner, read_scalars


def test_the_page_of_metrics_is_the_code():
    page = Path(__file__).parents[2] / "docs" / "metrics.md"
    assert page.read_text() == metrics.as_markdown()
    assert all(f"| `{name}` |" in page.read_text() for name in METRICS)
    helped = CliRunner().invoke(app, ["train", "--help"]).output
    assert all(f"{name}:" in helped for name in ("unreached_value", "effective_horizon", "wall_s"))


def test_a_learner_reports_every_quantity_of_its_last_update():
    of_a_log = {"action_prior": "behavior", "values": "soft", "conservative_weight": 1.0}
    learned = {}
    for settings in (of_a_log, {"kl_weight": "auto", "dynamics_members": 2, "rollout_weight": 1.0}):
        learner = make_learner(**settings)
        learned |= learner.update(num_updates=3)[DEFAULT_MODULE_ID]
    values = {name: float(learned[name]) for name in metrics.LEARNING}
    assert all(np.isfinite(value) for value in values.values())
    for name in metrics.DISTRIBUTED:
        levels = [values[f"{name}_{suffix}"] for suffix in ("p10", "p50", "p90")]
        assert levels == sorted(levels)
    assert 1 <= values["effective_horizon"] <= 20 + 1e-3  # the limit on q_Δ(0) is p0 = 0.95
    assert 0.4 < values["relabelled_share"] <= 1


def test_quantiles_are_those_of_the_batch():
    rows = torch.arange(101.0).flip(0)
    found = metrics.quantiles({"reward": rows, "dynamics_scale": rows.view(-1, 1), "other": rows})
    assert {name: float(value) for name, value in found.items()} == {
        f"{name}_{suffix}": level
        for name in ("reward", "dynamics_scale")
        for suffix, level in (("p10", 10), ("p50", 50), ("p90", 90))
    }


def test_scalars_of_a_run_that_goes_on(tmp_path):
    row = dict.fromkeys(METRICS) | {"env_steps": 500, "success_rate": 0.25, "reward": -2.0}
    with open_writer(tmp_path, 0) as writer:
        write_scalars(writer, row)
        write_scalars(writer, row | {"env_steps": 1000, "reward": -1.0})
    with open_writer(tmp_path, 1000) as writer:
        write_scalars(writer, row | {"env_steps": 1500, "reward": 3.0})
    offline = row | {"env_steps": 0, "updates": 300, "reward": 1.0}
    with open_writer(tmp_path / "offline", 0) as writer:
        write_scalars(writer, offline)
    assert read_scalars(tmp_path / "offline")["learning/reward"] == {300: 1.0}
    found = read_scalars(tmp_path)
    assert set(found) == {"evaluation/success_rate", "learning/reward"}
    assert found["learning/reward"] == pytest.approx({500: -2.0, 1000: -1.0, 1500: 3.0})
