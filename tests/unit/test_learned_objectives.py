"""Objectives with networks of their own, through the whole path: learning, checkpoints, acting."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rllib_odac import ODAC
from rllib_odac.agent.batch import make_batches
from rllib_odac.evaluation.inference import infer, missing_quantities
from tests.conftest import small_config

LOSSES = {
    "discern": "discriminator_loss",
    "uvd": "flow_loss",
    "contrastive": "contrastive_loss",
    "quasimetric": "quasimetric_loss",
}


def own_networks(algorithm):
    state = algorithm.learner_group._learner.networks.auxiliary.state_dict()
    return {name: value.cpu().numpy().copy() for name, value in state.items()}


def same(first, second):
    return [np.array_equal(first[name], second[name]) for name in first]


@pytest.mark.parametrize(
    "env", ["odac/Box2D-v0", pytest.param("FetchReach-v4", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    "objective",
    ["discern", "quasimetric"]
    + [pytest.param(name, marks=pytest.mark.slow) for name in ("uvd", "contrastive")],
)
def test_learns_and_goes_on_after_a_restart(ray_cluster, tmp_path, objective, env):
    algorithm = small_config(env, objective=objective, hidden=(16, 16)).build_algo()
    algorithm.train()
    before = own_networks(algorithm)
    learned = algorithm.train()["learners"]["default_policy"]
    assert math.isfinite(learned[LOSSES[objective]])
    assert not any(same(before, own_networks(algorithm)))
    assert not hasattr(algorithm.env_runner.module.networks, "auxiliary")

    algorithm.save_to_path(str(tmp_path / "checkpoint"))
    restored = ODAC.from_checkpoint(str(tmp_path / "checkpoint"))
    assert all(same(own_networks(algorithm), own_networks(restored)))
    for one in (algorithm, restored):
        one.train()
    assert all(same(own_networks(algorithm), own_networks(restored)))
    algorithm.stop()
    restored.stop()


@pytest.mark.parametrize("objective", LOSSES)
def test_losses_of_the_objective_move_nothing_else(ray_cluster, objective):
    algorithm = small_config(objective=objective).build_algo()
    algorithm.train()
    learner = algorithm.learner_group._learner
    module = learner.networks
    [batch] = make_batches(module, [learner.replay.sample(32)], 32, torch.Generator())
    module.zero_grad()
    learner._compute_update(module, learner.objective, batch).losses[LOSSES[objective]].backward()
    moved = {name for name, p in module.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == {name for name, _ in module.named_parameters() if "auxiliary" in name}
    algorithm.stop()


def test_sac_learns_from_hand_and_object(ray_cluster, tmp_path):
    algorithm = small_config("odac/FetchPush-v0", objective="sac", hidden=(16, 16)).build_algo()
    learned = algorithm.train()["learners"]["default_policy"]
    assert learned["reward"] < 0
    assert learned["discount"] == pytest.approx(0.95)
    assert "dynamics_loss" not in learned
    algorithm.save_to_path(str(tmp_path / "checkpoint"))
    restored = ODAC.from_checkpoint(str(tmp_path / "checkpoint"))
    replay = restored.learner_group._learner.replay
    assert not replay.sample(100).relabelled.any()
    algorithm.stop()
    restored.stop()


def test_a_checkpoint_of_another_objective_is_refused(ray_cluster, tmp_path):
    trained = small_config(objective="her").build_algo()
    trained.save_to_path(str(tmp_path / "checkpoint"))
    trained.stop()
    other = small_config(objective="uvd").build_algo()
    with pytest.raises(ValueError, match="is of 'HERObjective', but this is 'UVDObjective'"):
        other.restore_from_path(str(tmp_path / "checkpoint"))
    other.stop()


@pytest.mark.parametrize(
    "objective", ["contrastive", pytest.param("quasimetric", marks=pytest.mark.slow)]
)
def test_what_is_inferred_without_critics_is_a_value(ray_cluster, objective):
    algorithm = small_config(objective=objective).build_algo()
    algorithm.train()
    learner = algorithm.learner_group._learner
    rows = learner.replay.sample(4000)  # times 16 actions: more than any batch of pairs could be
    quantities = infer(learner.networks, learner.objective, rows)
    assert set(quantities) == {"value", "kl_cost"}
    assert all(np.isfinite(values).all() for values in quantities.values())
    assert len(missing_quantities(learner.networks, learner.objective)) == 2
    algorithm.stop()
