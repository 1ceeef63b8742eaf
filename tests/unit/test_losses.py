"""Properties of the objective over the whole range of values that learning can produce."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Categorical, Independent, Normal, Uniform, kl_divergence

from rllib_odac.maths import losses

INF = math.inf
LARGEST = 1e4  # of |V| and |log p|, in nats
EPSILONS = 8  # the round-off allowed, in units of the last place of the largest input

log_probs = st.floats(-LARGEST, LARGEST)
# Half of the values lie near log p, where the choice between stopping and going on is open.
values = st.tuples(log_probs, st.floats(-40.0, 40.0), st.booleans())
# Uniform in the logit, so that both ends are as common as the middle: 1e-6 to 1 − 1e-6.
prior_discounts = st.floats(-1.0, 1.0).map(lambda x: 1 / (1 + math.exp(-x * math.log(1e6 - 1))))
dtypes = st.sampled_from([torch.float32, torch.float64])

many = settings(deadline=None, max_examples=300)
pytestmark = pytest.mark.filterwarnings("error")


def inputs(
    log_prob: float, value: tuple[float, float, bool], dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """(log p_d, V) as tensors that require gradients."""
    free, offset, near = value
    next_value = min(max(log_prob + offset, -LARGEST), LARGEST) if near else free
    return (
        torch.tensor([log_prob], dtype=dtype, requires_grad=True),
        torch.tensor([next_value], dtype=dtype, requires_grad=True),
    )


def explicit_target(log_prob_goal: Tensor, next_value: Tensor, logit: Tensor, p0: float) -> Tensor:
    reward = losses.outcome_reward(log_prob_goal, logit, p0)
    return losses.bellman_target(reward, torch.sigmoid(logit), next_value)


def tolerance(*tensors: Tensor) -> float:
    largest = max(1.0, *(x.abs().max().item() for x in tensors))
    return EPSILONS * torch.finfo(tensors[0].dtype).eps * largest


# The backup


@many
@given(log_prob=log_probs, value=values, p0=prior_discounts, dtype=dtypes)
@example(log_prob=-LARGEST, value=(LARGEST, 0.0, False), p0=1e-6, dtype=torch.float32)
@example(log_prob=LARGEST, value=(-LARGEST, 0.0, False), p0=1 - 1e-6, dtype=torch.float32)
def test_explicit_and_logaddexp_forms_agree(
    log_prob: float, value: tuple[float, float, bool], p0: float, dtype: torch.dtype
) -> None:
    log_prob_goal, next_value = inputs(log_prob, value, dtype)
    logit = losses.optimal_discount_logit(next_value, log_prob_goal, p0)
    explicit = explicit_target(log_prob_goal, next_value, logit, p0)
    stable = losses.soft_bellman_target(log_prob_goal, next_value, p0)
    assert explicit.dtype == stable.dtype == dtype
    assert (explicit - stable).abs().item() <= tolerance(log_prob_goal, next_value)


@many
@given(log_prob=log_probs, value=values, p0=prior_discounts, other=st.floats(-2e4, 2e4))
def test_no_other_discount_gives_a_larger_target(
    log_prob: float, value: tuple[float, float, bool], p0: float, other: float
) -> None:
    log_prob_goal, next_value = inputs(log_prob, value)
    optimal = losses.optimal_discount_logit(next_value, log_prob_goal, p0)
    best = explicit_target(log_prob_goal, next_value, optimal, p0)
    for logit in (torch.full_like(optimal, other), optimal + 0.1, optimal - 0.1):
        worse = explicit_target(log_prob_goal, next_value, logit, p0)
        assert (worse - best).item() <= tolerance(log_prob_goal, next_value)


def test_a_different_discount_is_strictly_worse() -> None:
    log_prob_goal, next_value = torch.tensor([-3.0]), torch.tensor([-2.0])
    optimal = losses.optimal_discount_logit(next_value, log_prob_goal, 0.9)
    best = explicit_target(log_prob_goal, next_value, optimal, 0.9)
    for offset in (-1.0, 1.0):
        assert explicit_target(log_prob_goal, next_value, optimal + offset, 0.9) < best - 0.01


@many
@given(log_prob=log_probs, value=values, p0=prior_discounts)
def test_the_discount_is_the_derivative_of_the_target(
    log_prob: float, value: tuple[float, float, bool], p0: float
) -> None:
    log_prob_goal, next_value = inputs(log_prob, value)
    logit = losses.optimal_discount_logit(next_value, log_prob_goal, p0)
    for target in (
        explicit_target(log_prob_goal, next_value, logit, p0),
        losses.soft_bellman_target(log_prob_goal, next_value, p0),
    ):
        gradient = torch.autograd.grad(target.sum(), (next_value, log_prob_goal), retain_graph=True)
        assert gradient[0].item() == pytest.approx(torch.sigmoid(logit).item(), abs=1e-8)
        assert gradient[1].item() == pytest.approx(torch.sigmoid(-logit).item(), abs=1e-8)


@many
@given(log_prob=log_probs, value=values, p0=prior_discounts, dtype=dtypes)
@example(log_prob=-LARGEST, value=(LARGEST, 0.0, False), p0=1e-6, dtype=torch.float32)
@example(log_prob=LARGEST, value=(-LARGEST, 0.0, False), p0=1 - 1e-6, dtype=torch.float32)
def test_everything_and_its_gradient_is_finite(
    log_prob: float, value: tuple[float, float, bool], p0: float, dtype: torch.dtype
) -> None:
    first, second = inputs(log_prob, value, dtype)  # the roles below are any large numbers
    logit = losses.optimal_discount_logit(second, first, p0)
    reward = losses.outcome_reward(first, logit, p0)
    action_kl = losses.action_prior_kl(first, torch.zeros(1, 2))
    outputs = [
        logit,
        losses.bernoulli_kl(logit, p0),
        losses.bernoulli_kl(first, p0),
        reward,
        losses.outcome_reward(first, second, p0),
        losses.bellman_target(reward, torch.sigmoid(logit), second),
        losses.soft_bellman_target(first, second, p0),
        action_kl,
        losses.soft_value(second, action_kl, 0.05),
        losses.critic_loss(torch.stack([first, second]), torch.zeros_like(first)),
        losses.policy_loss(second, action_kl),
        losses.dynamics_loss(first),
        losses.temperature_loss(second, action_kl, 2.0),
    ]
    for output in outputs:
        assert output.isfinite().all()
        wanted = torch.autograd.grad(
            output.sum(), (first, second), retain_graph=True, allow_unused=True
        )
        gradients = [gradient for gradient in wanted if gradient is not None]
        assert gradients
        assert all(gradient.isfinite().all() for gradient in gradients)


# Impossible outcomes


@pytest.mark.parametrize(
    ("log_prob", "value", "discount", "reward", "target"),
    [
        (-2.0, -INF, 0.0, math.log(0.1) - 2.0, math.log(0.1) - 2.0),  # a terminal state
        (-INF, -3.0, 1.0, math.log(0.9), math.log(0.9) - 3.0),  # the goal is further away
        (-INF, -INF, 0.9, -INF, -INF),  # the goal cannot be reached
    ],
)
def test_minus_infinity(
    log_prob: float, value: float, discount: float, reward: float, target: float
) -> None:
    log_prob_goal, next_value = inputs(log_prob, (value, 0.0, False))
    next_value = torch.full_like(log_prob_goal, value).requires_grad_()
    logit = losses.optimal_discount_logit(next_value, log_prob_goal, 0.9)
    assert torch.sigmoid(logit).item() == pytest.approx(discount)
    assert losses.outcome_reward(log_prob_goal, logit, 0.9).item() == pytest.approx(reward)
    explicit = explicit_target(log_prob_goal, next_value, logit, 0.9)
    assert explicit.item() == pytest.approx(target)
    stable = losses.soft_bellman_target(log_prob_goal, next_value, 0.9)
    assert stable.item() == pytest.approx(target)
    if target > -INF:
        for form in (explicit, stable):
            gradient = torch.autograd.grad(form, (next_value, log_prob_goal), retain_graph=True)
            assert [x.item() for x in gradient] == [discount, 1.0 - discount]


def test_a_discount_of_zero_ignores_an_impossible_future() -> None:
    target = losses.bellman_target(
        torch.tensor([-1.0, -1.0]), torch.tensor([0.0, 0.5]), torch.tensor([-INF, -INF])
    )
    assert target.tolist() == [-1.0, -INF]


# The KL terms


@many
@given(logit=st.one_of(st.floats(-14, 14), st.floats(-2e4, 2e4)), p0=prior_discounts, dtype=dtypes)
def test_bernoulli_kl_is_non_negative_and_zero_at_the_prior(
    logit: float, p0: float, dtype: torch.dtype
) -> None:
    kl = losses.bernoulli_kl(torch.tensor(logit, dtype=dtype), p0)
    assert kl.item() >= -4 * torch.finfo(dtype).eps
    log_p0, log_p1 = losses.log_prior(p0)
    at_prior = losses.bernoulli_kl(torch.tensor(log_p0 - log_p1, dtype=dtype), p0)
    assert abs(at_prior.item()) <= 4 * torch.finfo(dtype).eps
    if abs(logit) < 14:
        q = 1 / (1 + math.exp(-logit))
        expected = q * math.log(q / p0) + (1 - q) * math.log((1 - q) / (1 - p0))
        assert kl.item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_the_prior_discount_pays_no_kl() -> None:
    logit = torch.tensor([math.log(0.9 / 0.1)])
    reward = losses.outcome_reward(torch.tensor([-7.0]), logit, 0.9)
    assert reward.item() == pytest.approx(0.1 * -7.0)


@pytest.mark.parametrize("n_actions", [1, 4])
def test_the_default_action_prior_is_uniform_on_the_box(n_actions: int) -> None:
    log_prob, actions = torch.randn(5), torch.rand(5, n_actions) * 1.9 - 0.95
    default = losses.action_prior_kl(log_prob, actions)
    corners = -torch.ones(n_actions), torch.ones(n_actions)
    for prior in (Uniform(-1.0, 1.0), Uniform(*corners), Independent(Uniform(*corners), 1)):
        torch.testing.assert_close(losses.action_prior_kl(log_prob, actions, prior), default)
    assert default.shape == (5,)


def test_action_prior_kl_estimates_the_kl() -> None:
    torch.manual_seed(0)
    policy = Independent(Normal(torch.tensor([0.3, -0.2]), torch.tensor([0.5, 0.1])), 1)
    prior = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
    actions = policy.sample((100_000,))
    estimate = losses.action_prior_kl(policy.log_prob(actions), actions, prior).mean()
    assert estimate.item() == pytest.approx(kl_divergence(policy, prior).item(), rel=0.01)
    assert losses.action_prior_kl(prior.log_prob(actions), actions, prior).abs().max() == 0.0


def test_action_prior_may_be_over_discrete_actions() -> None:
    prior = Categorical(torch.tensor([0.25, 0.75]))
    kl = losses.action_prior_kl(torch.zeros(2), torch.tensor([0, 1]), prior)
    torch.testing.assert_close(kl, -torch.tensor([0.25, 0.75]).log())


# The losses, against numbers worked out by hand


def test_backup_by_hand() -> None:
    # q(0) = σ(−1 + 2 + log 4) and Q = log(0.2 e^−2 + 0.8 e^−1)
    log_prob_goal, next_value = torch.tensor([-2.0]), torch.tensor([-1.0])
    stop, go = 0.2 * math.exp(-2.0), 0.8 * math.exp(-1.0)
    logit = losses.optimal_discount_logit(next_value, log_prob_goal, 0.8)
    assert logit.item() == pytest.approx(1.0 + math.log(4.0))
    assert torch.sigmoid(logit).item() == pytest.approx(go / (go + stop))
    target = losses.soft_bellman_target(log_prob_goal, next_value, 0.8)
    assert target.item() == pytest.approx(math.log(stop + go))


def test_critic_loss_by_hand() -> None:
    q_values = torch.tensor([[1.0, 2.0], [0.0, 4.0]], requires_grad=True)
    loss = losses.critic_loss(q_values, torch.tensor([0.0, 1.0]))
    assert loss.item() == pytest.approx(0.5 * ((1 + 1) / 2 + (0 + 9) / 2))
    (gradient,) = torch.autograd.grad(loss, q_values)
    torch.testing.assert_close(gradient, torch.tensor([[0.5, 0.5], [0.0, 1.5]]))


def test_policy_loss_by_hand() -> None:
    q_value, action_kl = torch.tensor([1.0, 3.0]), torch.tensor([2.0, 0.5])
    assert losses.soft_value(q_value, action_kl).tolist() == [-1.0, 2.5]
    assert losses.policy_loss(q_value, action_kl).item() == pytest.approx(-0.75)
    assert losses.policy_loss(q_value, action_kl, 0.5).item() == pytest.approx(-1.375)


def test_dynamics_loss_by_hand() -> None:
    assert losses.dynamics_loss(torch.tensor([-1.0, -4.0])).item() == pytest.approx(2.5)


@pytest.mark.parametrize(("action_kl", "sign"), [(5.0, 1.0), (1.0, -1.0)])
def test_the_temperature_rises_while_the_kl_is_above_its_target(
    action_kl: float, sign: float
) -> None:
    log_weight = torch.zeros((), requires_grad=True)
    kl = torch.tensor([action_kl], requires_grad=True)
    loss = losses.temperature_loss(log_weight, kl, target_kl=3.0)
    gradient, through_kl = torch.autograd.grad(loss, (log_weight, kl), allow_unused=True)
    assert -gradient.item() == sign * 2.0
    assert through_kl is None
