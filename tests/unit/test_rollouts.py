"""Steps that p_ψ makes up: where they lead, what critics learn of them, where they are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rllib_odac import ODACConfig, make_env
from rllib_odac.agent.batch import make_batches
from rllib_odac.agent.dynamics_ensemble import DynamicsEnsemble
from rllib_odac.agent.networks import GoalDynamics
from rllib_odac.agent.recording import HostReads
from rllib_odac.agent.rollouts import made_up, update_with_rollouts
from rllib_odac.agent.update import compute_update
from rllib_odac.data.record import record
from tests.made_up import episode, make_learner


@pytest.mark.parametrize("distribution", ["laplace", "gaussian"])
def test_draws_follow_the_density(distribution):
    generator = torch.Generator().manual_seed(0)
    chance = torch.rand((40_000, 3), generator=generator)
    chance[:2] = torch.tensor([[0.0, 1.0, 0.0], [1.0 - 1e-7, 0.0, 1.0 - 1e-7]])
    mean, log_scale = torch.tensor([0.3, -0.1]), torch.tensor([0.02, 0.5]).log()
    one = GoalDynamics(2, 2, (4,), distribution)
    drawn = one.draw(mean.expand(len(chance), 2), log_scale.expand(len(chance), 2), chance)
    assert torch.isfinite(drawn).all()
    central = one.central_probability(drawn - mean, log_scale.expand_as(drawn))
    levels = torch.tensor([0.1, 0.5, 0.9])
    for i in range(2):  # uniform, as it is of what follows the density
        torch.testing.assert_close(central[:, i].quantile(levels), levels, atol=0.01, rtol=0)

    several = DynamicsEnsemble(2, 2, (4,), distribution, num_members=3)
    means = torch.tensor([0.0, 10.0, 20.0])[:, None, None].expand(3, len(chance), 2)
    log_scales = log_scale.expand(3, len(chance), 2)
    nearest = (several.draw(means, log_scales, chance) / 10).round()
    for member in range(3):  # each draws a third, and whole goals
        share = (nearest == member).all(-1).double().mean()
        assert float(share) == pytest.approx(1 / 3, abs=0.01)


def batch_of(learner, size=64):
    learner.add_episodes([episode(9, terminated=True)])
    steps = learner.replay.sample_steps(size, learner.config.target_steps)
    return make_batches(learner.networks, steps, size, torch.Generator().manual_seed(0))[0]


@pytest.mark.parametrize(
    "settings", [{}, {"dynamics_members": 3, "disagreement_weight": -5.0}], ids=str
)
def test_critics_learn_of_made_up_steps_as_of_any_other(settings):
    learner = make_learner(rollout_weight=0.5, **settings)
    networks, objective = learner.networks, learner.objective
    batch = batch_of(learner)
    plain, update = (f(networks, objective, batch) for f in (compute_update, update_with_rollouts))
    assert update.losses.keys() - plain.losses.keys() == {"rollout_loss"}
    assert all(torch.equal(update.losses[name], loss) for name, loss in plain.losses.items())

    steps = made_up(networks, batch)
    rows = steps.transitions
    assert torch.equal(rows.observation, batch.transitions.observation)
    assert torch.equal(rows.next_observation, rows.next_achieved_goal)
    said = compute_update(networks, objective, steps)
    expected = 0.5 * said.losses["critic_loss"]
    torch.testing.assert_close(update.losses["rollout_loss"], expected)
    with torch.no_grad():
        policy, _ = networks.policy.sample(batch.inputs.state_goal, batch.noise[0])
    assert torch.equal(rows.actions, policy)
    if settings:  # at the policy's actions, which the replay does not hold
        disagreement = said.target.backup.metrics["disagreement"]
        free = make_learner(rollout_weight=0.5, dynamics_members=3)
        free.networks.load_state_dict(networks.state_dict())
        without = compute_update(free.networks, objective, steps)
        torch.testing.assert_close(said.target.value, without.target.value - 5 * disagreement)

    update.losses["rollout_loss"].backward()
    learned = {name for name, p in networks.named_parameters() if p.grad is not None}
    assert learned
    assert all(name.startswith("critic.") for name in learned)


def test_a_model_that_knows_leads_to_where_the_environment_does():
    learner = make_learner(rollout_weight=1.0, hidden=(64, 64), lr=3e-3)
    rng = np.random.default_rng(0)
    learner.replay.clear()
    for seed in range(60):  # places move by half of the action
        walk = episode(seed)
        moves = 0.5 * walk.actions
        walk.observation[:] = rng.uniform(-3, 3, 2) + np.pad(np.cumsum(moves, 0), [(1, 0), (0, 0)])
        learner.replay.add(walk)
    learner.update(num_updates=600)
    steps = learner.replay.sample_steps(256, 1)
    batch = make_batches(learner.networks, steps, 256, torch.Generator().manual_seed(0))[0]
    rows = made_up(learner.networks, batch).transitions
    made = rows.next_achieved_goal - rows.achieved_goal
    error = (made - 0.5 * rows.actions).norm(dim=-1)
    assert error.median() < 4 * 0.01 * float(learner.networks.goal_scale)  # the floor of the scale


def test_made_up_steps_wait_for_no_device():
    learner = make_learner(
        rollout_weight=1.0, dynamics_members=2, target_steps=2, executor="captured"
    )
    learner.update(num_updates=2)
    with HostReads() as reads:
        learner._updates_of_one_draw(2)
    assert reads.found == []


def test_where_more_is_observed_than_the_goal_it_is_refused(tmp_path):
    sentence = "^rollout_weight is 1, but must be 0 where observations are more than the achieved"
    with pytest.raises(ValueError, match=sentence):
        ODACConfig().environment("FetchReach-v4").training(rollout_weight=1).validate()
    with pytest.raises(ValueError, match=r"^rollout_weight is 1, but must be 0 unless p_ψ is lear"):
        ODACConfig().training(rollout_weight=1, objective="sac").check_settings()
    record(make_env("odac/Box2D-v0"), 100, tmp_path / "log")
    config = ODACConfig().training(rollout_weight=1)
    config.offline_data(input_=str(tmp_path / "log")).validate()
    with pytest.raises(ValueError, match=r"^env is None, but must be an environment where not off"):
        ODACConfig().training(rollout_weight=1).validate()
    other = ODACConfig().training(rollout_weight=1, data_goal=[0])
    wide = tmp_path / "wide.npz"
    rows = np.zeros((3, 4), np.float32)
    np.savez(wide, observation=rows, actions=rows[:2, :2])
    with pytest.raises(ValueError, match=f"{sentence} .* as in '{wide}'\\.$"):
        other.offline_data(input_=str(wide)).validate()
