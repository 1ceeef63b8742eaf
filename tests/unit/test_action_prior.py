"""Action priors and in-sample values against the exact oracle, and as densities."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.distributions import Independent, Normal, Uniform

from rllib_odac.agent.action_prior import (
    BehaviorPrior,
    GivenPrior,
    PreviousPolicyPrior,
    PriorInputs,
    find_factory,
)
from rllib_odac.agent.objectives import ODACObjective
from rllib_odac.agent.policies import SquashedGaussianPolicy
from rllib_odac.agent.rules import ADVANTAGE, EXPECTILE, SOFT, Rules
from rllib_odac.config import ODACConfig
from rllib_odac.maths import losses
from rllib_odac.maths.tabular import TabularODAC
from tests.tables import (
    Learned,
    TablePrior,
    Tables,
    all_transitions,
    drifting,
    minimise,
    scattered,
    slippery,
)

STEPS = 2500
PRECISION = {"rtol": 0.0, "atol": 1e-3}


def behavior(num_states: int) -> np.ndarray:
    """(S, 2) probabilities in tenths, other ones in each state."""
    first = np.array([0.3, 0.6, 0.8, 0.5, 0.2, 0.7])[:num_states]
    return np.stack([first, 1 - first], axis=1)


def with_prior(mdp: TabularODAC, prior: np.ndarray) -> TabularODAC:
    return TabularODAC(mdp.transitions, mdp.goal, mdp.prior_discount, prior)


def learn(mdp: TabularODAC, data: np.ndarray | None, prior: TablePrior, rules: Rules) -> Learned:
    size = len(mdp.transitions)
    tables = Tables(size, rules, prior)
    batch = all_transitions(mdp, behavior=data)
    return minimise(ODACObjective(mdp.prior_discount), batch, size, mdp.goal, tables, STEPS)


MDPS = pytest.mark.parametrize(
    "mdp",
    [scattered(0), slippery()],
    ids=["deterministic", "stochastic"],
)


@MDPS
def test_learned_behaviour_is_the_prior_of_the_posterior(mdp: TabularODAC) -> None:
    data = behavior(len(mdp.transitions))
    learned = learn(mdp, data, TablePrior(data, learned=True), Rules())
    exact = with_prior(mdp, data).solve(per_sample=True)
    np.testing.assert_allclose(learned.value, exact.value, **PRECISION)
    np.testing.assert_allclose(learned.policy, exact.policy, **PRECISION)
    uniform = mdp.solve(per_sample=True)
    assert np.abs(exact.value - uniform.value).max() > 0.1  # the two priors can be told apart


@MDPS
def test_in_sample_values_are_those_of_the_posterior_against_the_behaviour(
    mdp: TabularODAC,
) -> None:
    data = behavior(len(mdp.transitions))
    rules = Rules(values=SOFT, extraction=ADVANTAGE)
    learned = learn(mdp, data, TablePrior(data), rules)
    exact = with_prior(mdp, data).solve(per_sample=True)
    np.testing.assert_allclose(learned.state_value, exact.value, **PRECISION)
    np.testing.assert_allclose(learned.policy, exact.policy, **PRECISION)


def test_the_policy_of_a_while_ago_as_prior() -> None:
    mdp = drifting()
    before = mdp.solve(per_sample=True).policy
    learned = learn(mdp, None, TablePrior(before), Rules())
    exact = with_prior(mdp, before).solve(per_sample=True)
    np.testing.assert_allclose(learned.value, exact.value, **PRECISION)
    np.testing.assert_allclose(learned.policy, exact.policy, **PRECISION)


def random_mdp(rng: np.random.Generator, deterministic: bool) -> TabularODAC:
    states, actions = rng.integers(2, 8), rng.integers(2, 5)
    if deterministic:
        transitions = np.eye(states)[rng.integers(states, size=(states, actions))]
    else:
        transitions = rng.dirichlet(np.full(states, 0.5), size=(states, actions))
    prior = rng.dirichlet(np.ones(actions), size=states)
    return TabularODAC(transitions, 0, float(rng.uniform(0.5, 0.99)), prior)


@pytest.mark.parametrize("deterministic", [True, False])
def test_with_a_moving_prior_values_never_fall(deterministic: bool) -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        mdp = random_mdp(rng, deterministic)
        solution, log_z = mdp.solve(), mdp.log_marginal_likelihood()
        for _ in range(4):
            mdp = with_prior(mdp, solution.policy)
            moved, moved_log_z = mdp.solve(), mdp.log_marginal_likelihood()
            finite = solution.value > -np.inf
            assert (moved.value[finite] >= solution.value[finite] - 1e-9).all()
            if deterministic:
                assert (moved_log_z[finite] >= log_z[finite] - 1e-9).all()
            solution, log_z = moved, moved_log_z


def test_policy_iteration_with_a_prior_ends_at_the_posterior() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        mdp = random_mdp(rng, deterministic=False)
        *_, last = mdp.policy_iteration()
        np.testing.assert_allclose(last.value, mdp.solve().value, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(last.policy, mdp.improve(last.q), rtol=0, atol=1e-6)


# Densities and losses ---------------------------------------------------------------------------


def inputs(states: int, dim: int = 3) -> PriorInputs:
    state = torch.randn(states, dim, generator=torch.Generator().manual_seed(0))
    return PriorInputs(state, state, state)


@pytest.mark.parametrize("action_dim", [1, 2])
def test_the_behaviour_is_a_density_on_the_box(action_dim: int) -> None:
    prior = BehaviorPrior(3, action_dim, [16], num_components=3)
    with torch.no_grad():
        prior.net[-1].bias += 3 * torch.randn_like(prior.net[-1].bias)  # off the middle
        line = torch.linspace(-1, 1, 801)
        grid = torch.cartesian_prod(*[line] * action_dim).view(-1, action_dim)
        at = inputs(1).state.expand(len(grid), -1)
        density = prior(at, grid).exp().view(*[801] * action_dim)
        for _ in range(action_dim):
            density = torch.trapezoid(density, line, dim=0)
    assert float(density) == pytest.approx(1, abs=2e-3)


def test_a_learned_behaviour_has_both_modes_and_the_faces_of_the_box() -> None:
    torch.manual_seed(0)
    prior = BehaviorPrior(1, 1, [32], num_components=4)
    optimizer = torch.optim.Adam(prior.parameters(), lr=1e-2)
    for _ in range(400):
        state = torch.ones(256, 1)
        actions = torch.where(torch.rand(256, 1) < 0.5, -0.4, 1.0)  # one of them on a face
        actions = (actions + 0.1 * torch.randn(256, 1)).clamp(-1, 1)
        loss = prior.loss(PriorInputs(state, state, state), actions)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    said = prior(torch.ones(4, 1), torch.tensor([[-0.4], [1.0], [0.3], [-1.0]])).exp().tolist()
    assert min(said[:2]) > 1.0
    assert max(said[2:]) < 0.2


def test_the_kl_to_a_given_prior_and_to_a_previous_policy() -> None:
    policy = SquashedGaussianPolicy(3, 2, [16])
    at = inputs(5)
    noise = torch.randn(20_000, 5, 2, generator=torch.Generator().manual_seed(1))
    actions, log_prob = policy.sample(at.state_goal, noise)
    uniform = GivenPrior(lambda seen: Independent(Uniform(-torch.ones(len(seen), 2), 1.0), 1))
    expected = losses.action_prior_kl(log_prob[0], actions[0])
    torch.testing.assert_close(uniform.kl(policy, at, actions[0], log_prob[0]), expected)

    other = SquashedGaussianPolicy(3, 2, [16])
    previous = PreviousPolicyPrior(other, interval=10)
    exact = previous.kl(policy, at, actions[0], log_prob[0])
    mean, log_std = other(at.state_goal)
    raw = torch.atanh(actions.double())
    behind = Normal(mean, log_std.exp()).log_prob(raw).sum(-1)
    jacobian = torch.log1p(-actions.double().square()).sum(-1)
    estimate = (log_prob.double() - (behind - jacobian)).mean(0)
    torch.testing.assert_close(exact.double(), estimate, rtol=0.005, atol=0.01)

    previous.follow(policy, 9)
    assert previous.kl(policy, at, actions[0], log_prob[0]).min() > 0
    previous.follow(policy, 10)
    torch.testing.assert_close(
        previous.kl(policy, at, actions[0], log_prob[0]), torch.zeros(5), rtol=0, atol=1e-6
    )


def test_linex_and_expectile_losses_have_their_minima_where_they_should() -> None:
    q_value = torch.tensor([-3.0, -1.0, -0.5, -2.0], dtype=torch.float64)
    for kl_weight in (0.5, 2.0):
        value = torch.zeros((), dtype=torch.float64, requires_grad=True)
        soft = kl_weight * (torch.logsumexp(q_value / kl_weight, 0) - math.log(4))
        losses.linex_loss(q_value - (value + soft.detach()), kl_weight).backward()
        assert value.grad.abs() < 1e-12
    value = torch.tensor(float(q_value.mean()), dtype=torch.float64, requires_grad=True)
    losses.expectile_loss(q_value - value, 0.5).backward()
    assert value.grad.abs() < 1e-12


def test_a_tangent_bounds_what_one_action_weighs() -> None:
    value = torch.zeros((), dtype=torch.float64, requires_grad=True)
    losses.linex_loss(torch.tensor([1e4], dtype=torch.float64) - value, 1.0).backward()
    assert value.grad.abs() <= math.exp(5)


def test_the_middle_expectile_is_the_value_of_the_behaviour() -> None:
    mdp = scattered(0)
    data = behavior(len(mdp.transitions))
    rules = Rules(values=EXPECTILE, expectile=0.5, extraction=ADVANTAGE)
    learned = learn(mdp, data, TablePrior(data), rules)
    exact = with_prior(mdp, data).evaluate(data)
    np.testing.assert_allclose(learned.state_value, exact.value, rtol=0.01)


# Settings ----------------------------------------------------------------------------------------


def normal(observation: torch.Tensor) -> Independent:
    return Independent(Normal(torch.zeros(len(observation), 2), 0.5), 1)


def test_a_prior_is_found_by_name() -> None:
    assert find_factory("tests.unit.test_action_prior:normal")(torch.zeros(3, 1)).batch_shape == (
        3,
    )
    with pytest.raises(ValueError, match=r"action_prior is 'no.such:thing', which cannot be"):
        ODACConfig().training(action_prior="no.such:thing").check_settings()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"action_prior": "normal"}, "action_prior is 'normal', but must be"),
        (
            {"values": "soft", "objective": "discern"},
            'values is "soft", but must be "explicit" with',
        ),
        ({"values": "soft", "kl_weight": 0}, "kl_weight is 0, but must be positive with values"),
        ({"extraction": "advantage"}, 'extraction is "advantage", but must be "posterior" or'),
        ({"action_prior": "behavior", "kl_weight": "auto"}, 'kl_weight is "auto", but must be a n'),
        ({"offline": True}, "offline is True, but must be False where data is None"),
    ],
)
def test_what_does_not_fit_is_said_in_one_sentence(settings: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ODACConfig().training(**settings).check_settings()
