"""A sweep's trial: its budget, its figures, and settings that change in mid-run."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from rllib_odac.experiments.spec import RunSpec
from rllib_odac.experiments.sweeps.trial import SweepTrial, trial_parameters
from rllib_odac.metrics import FIGURES
from tests.conftest import starts_trials

pytestmark = [pytest.mark.distributed, starts_trials]

SPEC = RunSpec(
    "odac/Box2D-v0",
    steps=700,
    evaluate_every=300,
    evaluation_episodes=2,
    final_episodes=3,
    settings={"hidden": [16], "train_batch_size_per_learner": 16, "lr": 0.01, "kl_weight": 0.1},
)


def test_a_trial_ends_at_its_budget_and_has_figures_at_each_step(ray_cluster, tmp_path):
    trial = SweepTrial(trial_parameters(SPEC, {}))
    results = [trial.train() for _ in range(3)]
    assert [result["env_steps"] for result in results] == [300, 600, 700]
    assert [result["done"] for result in results] == [False, False, True]
    for result in results:
        assert all(math.isfinite(result[name]) for name in FIGURES)
    assert results[-1]["updates"] == 100  # half of what came after the first 500 steps
    path = trial.save_to_path(str(tmp_path / "checkpoint"))
    trial.stop()

    # Another takes over the networks, as in a population, and keeps its own settings.
    own = SPEC.settings | {"lr": 0.002, "kl_weight": 0.03}
    other = SweepTrial(trial_parameters(replace(SPEC, steps=1000, settings=own), {}))
    other.restore_from_path(path)
    assert other.env_steps == 700
    other.shorten_iteration(100)
    other.train()

    def settings(learner):
        [(_, optimizer)] = learner.get_optimizers_for_module("default_policy")
        return optimizer.param_groups[0]["lr"], learner.networks.log_kl_weight.exp().item()

    [found] = [result.get() for result in other.learner_group.foreach_learner(settings)]
    assert found == pytest.approx((0.002, 0.03))
    other.stop()


def test_a_trial_that_is_solved_ends_before_its_budget(ray_cluster):
    # Some of a hundred goals are where the ball lies anyway.
    spec = replace(SPEC, stop_success=0.01, evaluation_episodes=100, final_episodes=100)
    trial = SweepTrial(trial_parameters(spec, {}))
    result = trial.train()
    trial.stop()
    assert result["env_steps"] == 300
    assert result["success_rate"] >= 0.01
    assert result["finished"]
    assert result["done"]
