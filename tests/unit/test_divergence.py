"""Updates that are not finite: the message names what went bad, or they are skipped and counted."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from rllib_odac import GoalEpisode, make_env
from rllib_odac.agent.divergence import DivergenceGuard
from rllib_odac.agent.objectives.her import HERObjective
from rllib_odac.envs.goals import Goals
from tests.conftest import small_config


class SometimesInfinite(HERObjective):
    """Pays infinitely much for transitions whose goal is far to the right."""

    border = 0.5

    def reward_and_discount(self, batch, next_value):
        backup = super().reward_and_discount(batch, next_value)
        backup.reward[batch.transitions.goal[:, 0] > self.border] = torch.inf
        return backup


def learner(**settings):
    """A learner with 60 made-up transitions, whose goals are in [0, 1]."""
    env = make_env("odac/Box2D-v0")
    spaces = {DEFAULT_MODULE_ID: (env.observation_space, env.action_space)}
    learner = small_config(**settings).debugging(seed=0).build_learner(spaces=spaces)
    rng = np.random.default_rng(0)
    size = env.observation_space["observation"].shape[0]
    for _ in range(3):
        columns = [rng.random((21, n), dtype=np.float32) for n in (size, 2, 2)]
        actions = rng.random((20, 2), dtype=np.float32)
        learner.add_episodes([GoalEpisode(*columns, actions)])
    return learner


def parameters(learner):
    """All that is trained; targets go on following the critics."""
    named = learner.networks.named_parameters()
    return {name: value.detach().clone() for name, value in named if value.requires_grad}


def diverges(learner, num_updates):
    with pytest.raises(FloatingPointError) as info:
        learner.update(num_updates=num_updates)
    text = str(info.value)
    assert text.startswith("Training diverged: ")
    assert "\n" not in text
    return text


def test_a_huge_learning_rate_stops_training_by_name_and_number():
    text = diverges(learner(lr=1e30), 40)
    assert "_loss' is " in text
    assert any(f"at update {number}" in text for number in (2, 3))
    for name in ("reward", "target", "q_values", "log_prob_next", "goal in [0."):
        assert name in text


def test_a_weight_that_is_not_a_number_is_named():
    broken = learner()
    broken.update(num_updates=7)
    name, weight = next(iter(broken.networks.critic.named_parameters()))
    weight.data.flatten()[3] = torch.nan
    text = diverges(broken, 20)
    assert f"is nan at update 8 because the parameter 'critic.{name}' is not finite" in text


def test_an_infinite_reward_is_named_before_it_reaches_a_parameter():
    text = diverges(learner(objective=SometimesInfinite), 200)
    assert "the loss 'critic_loss' is inf at update 1;" in text
    assert "reward in [-1, " in text
    assert " of 32 not finite)" in text


def test_parameters_stay_as_they_were_before_the_update_that_diverged():
    broken = learner()
    broken.update(num_updates=3)
    before = parameters(broken)
    broken.objective = SometimesInfinite(Goals(0.6))
    diverges(broken, 20)
    after = parameters(broken)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("num_updates", [1, 20])
def test_a_gradient_that_is_not_finite_though_the_loss_is(num_updates):
    broken = learner()
    broken.networks.policy.net[0].bias.register_hook(lambda gradient: gradient * torch.inf)
    text = diverges(broken, num_updates)
    assert "the gradient of 'policy.net.0.bias' before it is not finite" in text


def test_losses_read_together_name_the_first_update_that_diverged():
    broken = learner()
    broken._guard = DivergenceGuard(broken.networks, skips=False, reads_at_once=False)
    broken.update(num_updates=4)
    weight = broken.networks.dynamics.net[0].weight
    weight.data[0] = torch.inf
    text = diverges(broken, 5)
    assert "at update 5" in text
    assert "because the parameter" in text


def test_skipped_updates_change_nothing_and_are_counted(caplog):
    skipping = learner(on_divergence="skip")
    skipping.update(num_updates=5)
    before, moments = parameters(skipping), skipping._get_optimizer_state()
    skipping.objective = SometimesInfinite(Goals(0.6))
    skipping.objective.border = -1.0  # everywhere
    with caplog.at_level(logging.WARNING):
        metrics = [skipping.update(num_updates=count) for count in (3, 17)]
    counts = [float(each["__all_modules__"]["updates_skipped"]) for each in metrics]
    assert counts == [3, 17]
    warnings = [record.message for record in caplog.records if "skipped" in record.message]
    assert len(warnings) == 1
    assert "the loss 'critic_loss' is inf at update 6" in warnings[0]
    after = parameters(skipping)
    assert all(torch.equal(before[name], after[name]) for name in before)
    for old, new in zip(
        torch.utils._pytree.tree_leaves(moments),
        torch.utils._pytree.tree_leaves(skipping._get_optimizer_state()),
        strict=True,
    ):
        assert np.array_equal(old, new)
    skipping.objective = HERObjective(Goals(0.6))
    assert float(skipping.update(num_updates=5)["__all_modules__"]["updates_skipped"]) == 0
    assert not all(torch.equal(before[n], v) for n, v in parameters(skipping).items())


def test_skipping_leaves_finite_training_as_it_is():
    first, second = learner(), learner(on_divergence="skip")
    for each in (first, second):
        each.update(num_updates=20)
    ours, theirs = parameters(first), parameters(second)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_skipping_stops_where_the_parameters_are_lost():
    broken = learner(on_divergence="skip")
    broken.networks.policy.net[0].bias.data[0] = torch.nan
    text = diverges(broken, 2)
    assert text == "Training diverged: the parameter 'policy.net.0.bias' is not finite, update 2."
