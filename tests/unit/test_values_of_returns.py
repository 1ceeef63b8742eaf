"""Values of "returns": V(s, g) alone, from targets of several logged steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rllib_odac import GoalEpisode
from rllib_odac.agent.batch import make_batches
from rllib_odac.agent.likelihoods import likelihoods_ahead
from rllib_odac.agent.networks import FourierFeatures, mlp
from tests.made_up import make_learner, small_config

RULES = {"values": "returns", "extraction": "advantage", "target_steps": 4, "num_critics": 1}


def walks_along_a_line(learner, count: int = 200, steps: int = 12) -> None:
    """Walks of which half go left and half right, with noise that tells little of the way."""
    rng = np.random.default_rng(0)
    learner.replay.clear()
    for _ in range(count):
        way = rng.choice([-1, 1])
        action = np.zeros((steps, 2), np.float32)
        action[:, 0] = np.clip(0.3 * way + rng.normal(0, 0.3, steps), -1, 1)
        places = np.concatenate([np.zeros((1, 2)), np.cumsum(0.3 * action, axis=0)])
        places = (places + np.array([rng.uniform(-1, 1), 0])).astype(np.float32)
        learner.replay.add(GoalEpisode(places, places, places[[-1] * (steps + 1)], action))


def test_of_two_ways_the_one_to_the_goal_is_followed() -> None:
    relabel = {"next": 0.2, "future": 0.5, "random": 0.3}
    learner = make_learner(**RULES, lr=3e-3, max_discount=None, relabel=relabel)
    walks_along_a_line(learner)
    learner.update(num_updates=800)
    networks, place = learner.networks, torch.zeros(4, 2)
    goal = torch.tensor([[-1.2, 0.0], [-0.1, 0.0], [0.1, 0.0], [1.2, 0.0]])
    with torch.no_grad():
        inputs = networks.policy_inputs(place, place, goal)
        action = networks.policy.mode(inputs)[:, 0]
        value = networks.critic(inputs, place)[0]
    assert float(action[3] - action[0]) > 0.1
    assert float(value[1:3].min() - value[[0, 3]].max()) > 0.2


def test_targets_look_at_the_density_of_the_step_that_ends_nearest() -> None:
    learner = make_learner(**RULES, dynamics_background=0.05)
    networks = learner.networks
    steps = learner.replay.sample_steps(64, 4)
    [batch] = make_batches(networks, steps, 64, torch.Generator().manual_seed(0))
    said = [log_prob for log_prob, _ in likelihoods_ahead(networks, batch)]
    distance = [(step.next_achieved_goal - step.goal).norm(dim=-1) for step in steps[1:]]
    nearest = torch.stack(distance).argmin(0)
    background = networks.dynamics.log_prob_of_background(batch.inputs.goal)
    for number, step in enumerate(batch.following):
        with torch.no_grad():
            mean, log_scale = networks.dynamics(step.state_action)
            way = step.goal_offset - mean
            exact = networks.dynamics.log_prob(batch.inputs.goal, way, log_scale)
        expected = torch.where(nearest == number, exact, background)
        torch.testing.assert_close(said[number], expected)
        assert (said[number] <= exact + 1e-5).all()  # so that values stay a lower bound


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ValueError, match='extraction is "ddpg_bc", but must be "advantage" or'):
        small_config(values="returns", extraction="ddpg_bc").check_settings()
    for name in ("conservative_weight", "rollout_weight"):
        with pytest.raises(ValueError, match=f"^{name} is 1, but must be 0 where values"):
            small_config(**RULES, **{name: 1}).check_settings()


def test_fourier_features_let_a_jump_be_learned_soon() -> None:
    errors = []
    for count in (0, 64):
        torch.manual_seed(0)
        net = mlp([1, 64, 1], features=FourierFeatures([1], count) if count else None)
        adam = torch.optim.Adam(net.parameters(), 1e-3)
        for _ in range(300):
            x = 4 * torch.rand(256, 1) - 2
            loss = (net(x) - torch.sign(torch.sin(3 * x))).square().mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
        errors.append(float(loss.detach()))
    assert errors[1] < 0.5 * errors[0]


def test_a_sine_looks_at_one_part_of_the_inputs() -> None:
    features = FourierFeatures([2, 0, 1], 6)
    assert features(torch.zeros(2, 3)).shape == (2, 9)
    assert not list(features.parameters())
    seen = (features.frequencies != 0).sum(0)
    assert seen.tolist() == [2, 0, 1, 2, 0, 1]
