"""Networks: densities integrate to one and keep their bounds, batched critics, normalisers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rllib_odac.agent.critics import CriticEnsemble
from rllib_odac.agent.dynamics_ensemble import DynamicsEnsemble
from rllib_odac.agent.networks import GoalDynamics, RunningNormalizer
from rllib_odac.agent.policies import SquashedGaussianPolicy

MEAN = 0.3


def quadrature(dim):
    """Points (N, dim) and weights (N,) of integrals over all goals, out to ±40.

    Gauss's rule between the places where a density around zero or `MEAN` has its edges.
    """
    edges = np.array([-40, -10, -3, -1, 0, MEAN, 1, 3, 10, 40])
    nodes, weights = np.polynomial.legendre.leggauss(8)
    half = np.diff(edges)[:, None] / 2
    axis = torch.from_numpy((edges[:-1, None] + half * (nodes + 1)).ravel())
    weight = torch.from_numpy((half * weights).ravel())
    points = torch.cartesian_prod(*[axis] * dim).view(-1, dim)
    return points, torch.cartesian_prod(*[weight] * dim).view(-1, dim).prod(-1)


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("distribution", ["laplace", "gaussian"])
@pytest.mark.parametrize("background", [0.0, 0.05, 0.5])
def test_density_integrates_to_one_over_all_goals(dim, distribution, background):
    settings = {"distribution": distribution, "background": background}
    dynamics = GoalDynamics(3, dim, (8,), **settings)
    points, weights = quadrature(dim)
    log_scale = torch.log(torch.tensor([0.3, 0.4, 0.5], dtype=torch.float64)[:dim])
    for mean in (0.0, MEAN):
        log_prob = dynamics.log_prob(points, points - mean, log_scale.expand_as(points))
        assert abs(float((log_prob.exp() * weights).sum()) - 1) < 1e-3

    mixture = DynamicsEnsemble(3, dim, (8,), num_members=3, **settings)
    apart = torch.tensor([[0.0] * dim, [MEAN] * dim, [MEAN, 0.0, 0.0][:dim]])[:, None]
    log_scales = log_scale + torch.tensor([0.0, 0.2, -0.3])[:, None, None]
    log_prob = mixture.mixed(mixture.member_log_probs(points, points, apart, log_scales))
    assert log_prob.shape == weights.shape
    assert abs(float((log_prob.exp() * weights).sum()) - 1) < 1e-3


def test_the_background_is_the_same_from_every_state():
    dynamics = GoalDynamics(3, 2, (8,), background=0.05)
    goal = torch.tensor([[0.3, -0.7]])
    log_scale = torch.full((1, 2), math.log(0.01))
    far = [dynamics.log_prob(goal, torch.full((1, 2), away), log_scale) for away in (1.0, -3.0)]
    assert float(far[0]) == pytest.approx(math.log(0.05 / 4) - 1, abs=1e-5)
    assert float(far[0]) == pytest.approx(float(far[1]), abs=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4), st.floats(-10, 10), st.sampled_from([0.0, 0.05]))
def test_density_stays_between_its_bounds(x, y, raw_scale, background):
    dynamics = GoalDynamics(3, 2, (8,), background=background)
    delta = torch.tensor([[x, y], [0.0, 0.0]])
    log_scale = dynamics.log_min_scale * torch.sigmoid(torch.full((2, 2), raw_scale))
    goal = torch.tensor([[y, x], [0.0, 0.0]])
    log_prob = dynamics.log_prob(goal, delta, log_scale)
    assert torch.isfinite(log_prob).all()
    assert (log_prob <= dynamics.max_log_prob + 1e-5).all()
    if background:
        least = math.log(background) - 2 * math.log(2) - goal.abs().sum(-1)
        assert (log_prob >= least - 1e-5 * (1 + goal.abs().sum(-1))).all()


def test_largest_density_is_reached_at_the_floor():
    dynamics = GoalDynamics(3, 2, (8,), min_scale=0.01, background=0.05)
    zero = torch.zeros(1, 2)
    log_prob = dynamics.log_prob(zero, zero, torch.full((1, 2), math.log(0.01)))
    assert float(log_prob) == pytest.approx(dynamics.max_log_prob, abs=1e-5)
    assert torch.equal(dynamics.log_prob_of_staying(zero, zero), log_prob)


def test_fixed_dynamics_stay_at_the_achieved_goal():
    dynamics = GoalDynamics(3, 2, (8,), learned=False, fixed_scale=0.05)
    displacement, log_scale = dynamics(torch.randn(4, 3))
    assert not list(dynamics.parameters())
    assert (displacement == 0).all()
    assert torch.allclose(log_scale, torch.tensor(math.log(0.05)))


def test_dynamics_learn_a_displacement_and_its_spread():
    torch.manual_seed(0)
    dynamics = GoalDynamics(2, 2, (32,), background=0.05)
    optimizer = torch.optim.Adam(dynamics.parameters(), lr=1e-2)
    for _ in range(600):
        inputs = torch.rand(256, 2) * 2 - 1
        noise = torch.distributions.Laplace(0.0, 0.05).sample((256, 2))
        displacement, log_scale = dynamics(inputs)
        goal = 0.3 * inputs + noise
        loss = -dynamics.log_prob(goal, goal - displacement, log_scale).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    displacement, log_scale = dynamics(torch.tensor([[0.5, -0.5]]))
    assert torch.allclose(displacement, torch.tensor([[0.15, -0.15]]), atol=0.02)
    assert torch.allclose(log_scale.exp(), torch.tensor(0.05), atol=0.015)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_ensemble_equals_its_members_one_by_one(layer_norm):
    critic = CriticEnsemble(3, 2, (16, 16), num_critics=3, layer_norm=layer_norm)
    for parameter in critic.parameters():
        torch.nn.init.normal_(parameter)
    inputs = torch.randn(7, 5)
    values = critic(inputs[:, :3], inputs[:, 3:])
    assert values.shape == (3, 7)
    for member in range(3):
        hidden = inputs
        for index, (weight, bias) in enumerate(zip(critic.weights, critic.biases, strict=True)):
            hidden = hidden @ weight[member] + bias[member]
            if index < 2:
                if layer_norm:
                    gain, shift = critic.gains[index][member, 0], critic.shifts[index][member, 0]
                    hidden = torch.nn.functional.layer_norm(hidden, (16,), gain, shift)
                hidden = hidden.relu()
        assert torch.allclose(values[member], hidden.squeeze(-1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_frozen_critic_gives_the_same_values_and_gradients_to_its_actions_only(layer_norm):
    critic = CriticEnsemble(3, 2, (16, 16), layer_norm=layer_norm)
    inputs, actions = torch.randn(7, 3), torch.randn(7, 2, requires_grad=True)
    values = critic(inputs, actions)
    (expected,) = torch.autograd.grad(values.sum(), actions)
    frozen = critic(inputs, actions, frozen=True)
    assert torch.allclose(frozen, values, atol=1e-6)
    frozen.sum().backward()
    assert torch.allclose(actions.grad, expected, atol=1e-6)
    assert all(parameter.grad is None for parameter in critic.parameters())


def test_policy_log_probability_is_that_of_the_squashed_gaussian():
    policy = SquashedGaussianPolicy(3, 2, (8,))
    inputs, noise = torch.randn(50, 3), torch.randn(50, 2)
    actions, log_prob = policy.sample(inputs, noise)
    mean, log_std = policy(inputs)
    normal = torch.distributions.Normal(mean.double(), log_std.double().exp())
    raw = mean.double() + log_std.double().exp() * noise
    expected = (normal.log_prob(raw) - torch.log1p(-(torch.tanh(raw) ** 2))).sum(-1)
    assert torch.allclose(log_prob.double(), expected, atol=1e-4)
    assert (actions.abs() <= 1).all()


def test_policy_is_finite_far_out():
    policy = SquashedGaussianPolicy(1, 1, (4,))
    inputs = torch.full((3, 1), 1e6)
    actions, log_prob = policy.sample(inputs, torch.tensor([[-8.0], [0.0], [8.0]]))
    log_prob.sum().backward()
    assert torch.isfinite(log_prob).all()
    assert (actions.abs() <= 1).all()
    assert all(torch.isfinite(p.grad).all() for p in policy.parameters())


def test_normalizer_agrees_with_the_whole_stream():
    torch.manual_seed(0)
    values = torch.randn(1000, 3) * torch.tensor([1.0, 5.0, 0.0]) + torch.tensor([0.0, 100.0, 7.0])
    normalizer = RunningNormalizer(3)
    for part in values.split(137):
        normalizer.update(part)
    assert torch.allclose(normalizer.mean, values.mean(0), atol=1e-3)
    assert torch.allclose(normalizer.std[:2], values.std(0, correction=0)[:2], rtol=1e-4)
    assert (normalizer(values)[:, 2] == 0).all()  # a constant feature
    assert normalizer(torch.full((1, 3), 1e9)).max() == normalizer.clip
    copy = RunningNormalizer(3)
    copy.load_state_dict(normalizer.state_dict())
    assert torch.equal(copy(values), normalizer(values))
