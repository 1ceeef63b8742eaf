"""Options of targets and gradients: several steps, a random subset of critics, clipping."""

from __future__ import annotations

import pytest
import torch

from rllib_odac.agent.batch import Batch, make_batches, prepare
from rllib_odac.agent.objectives import JudgedTransitions
from rllib_odac.agent.update import compute_update
from rllib_odac.maths.losses import action_prior_kl
from tests.conftest import small_config
from tests.made_up import make_learner


def test_each_network_is_clipped_by_itself():
    free, clipped = make_learner(), make_learner(grad_clip=1e-3)
    for learner in (free, clipped):
        learner.update(num_updates=1)
    for name in ("policy", "critic", "dynamics"):
        ours = [p.grad for p in getattr(clipped.networks, name).parameters()]
        theirs = [p.grad for p in getattr(free.networks, name).parameters()]
        norm = torch.nn.utils.get_total_norm(theirs)
        assert norm > 0.1  # each of them has to be clipped
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, other * (1e-3 / norm), rtol=1e-3, atol=1e-9)


def test_targets_take_the_minimum_of_some_critics_drawn_at_random():
    learner = make_learner(num_critics=5, target_critics=2)
    draw = learner.replay.sample(32 * 16)
    batches = make_batches(learner.networks, [draw], 32, torch.Generator().manual_seed(0))
    chosen = torch.stack([batch.target_critics for batch in batches])
    assert chosen.shape == (16, 2)
    assert (chosen[:, 0] != chosen[:, 1]).all()
    assert chosen.unique().tolist() == [0, 1, 2, 3, 4]
    with torch.no_grad():  # critics that say the same in all states, each something else
        for parameter in learner.networks.target_critic.parameters():
            parameter.zero_()
        learner.networks.target_critic.biases[-1][:, 0, 0] = torch.tensor([0.0, 1, 2, 3, 4])
    for batch in batches:
        update = compute_update(learner.networks, learner.objective, batch)
        value = update.target.next_value + update.predictions.kl_weight * next_kl(learner, batch)
        torch.testing.assert_close(value, batch.target_critics.min().float().expand(32))
    learner.update(num_updates=3)


def next_kl(learner, batch):
    noise = batch.noise[1]
    with torch.no_grad():
        actions, log_prob = learner.networks.policy.sample(batch.inputs.next_state_goal, noise)
    return action_prior_kl(log_prob, actions)


@pytest.mark.parametrize(
    "settings",
    [
        {"objective": "odac"},
        {"objective": "her", "success_distance": 0.5},
        {"objective": "odac", "dynamics_members": 3, "disagreement_weight": -2.0},
    ],
    ids=str,
)
def test_a_target_of_several_steps_is_the_backup_along_them(settings):
    learner = make_learner(target_steps=3, **settings)
    dynamics, weight = learner.networks.dynamics, settings.get("disagreement_weight", 0.0)
    steps = learner.replay.sample_steps(64, 3)
    [batch] = make_batches(learner.networks, steps, 64, torch.Generator().manual_seed(0))
    update = compute_update(learner.networks, learner.objective, batch)
    cost = update.predictions.kl_weight * next_kl(learner, batch)
    with torch.no_grad():
        actions, _ = learner.networks.policy.sample(batch.inputs.next_state_goal, batch.noise[1])
        critic = learner.networks.target_critic(batch.inputs.next_state_goal, actions).amin(0)
    for row in range(64):
        value = (critic - cost)[row : row + 1]
        _, high = learner.objective.value_bounds(learner.networks.max_log_prob)
        value = value.clamp_max(high)
        for step in reversed([step for step in steps[1:] if step.within[row]]):
            one = step.map(lambda column, row=row: column[row : row + 1])
            rows = Batch(one, prepare(learner.networks, one), torch.zeros(2, 1, 2))
            with torch.no_grad():
                mean, log_scale = dynamics(rows.inputs.state_action)
                log_prob = dynamics.mixed(
                    dynamics.member_log_probs(
                        rows.inputs.goal, rows.inputs.goal_offset, mean, log_scale
                    )
                )
            judged = JudgedTransitions(one, log_prob, learner.networks.goal_scale)
            backup = learner.objective.reward_and_discount(judged, value)
            value = backup.reward + backup.discount * value - cost[row]
            if weight:
                value += weight * dynamics.disagreement(mean)
        assert float(value) == pytest.approx(float(update.target.next_value[row]), abs=1e-4)


def test_options_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match="target_critics is 3, but must be at most num_critics, 2"):
        small_config(target_critics=3).check_settings()
    with pytest.raises(ValueError, match="target_steps is 2, but must be 1 for an objective that"):
        small_config(target_steps=2, objective="uvd").check_settings()
