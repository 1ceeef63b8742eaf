"""The mathematics of ODAC as pure functions on tensors.

Every function is named after the equation that it computes and is used unchanged by the learner
and by the tests that hold it against the exact oracle. All of them broadcast over batch dimensions;
`(B,)` below stands for any shape.

Symbols follow Rudner et al., "Outcome-Driven Reinforcement Learning via Variational Inference"
(NeurIPS 2021): Δ = 1 says that the outcome happens in this step, Δ = 0 that the trajectory goes on.
The *dynamic discount* is q_Δ(0), the probability of going on; its prior is p0 = p_Δ(0). The
discount is passed around as a logit because 1 − σ(x) loses every digit once σ(x) rounds to one.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution

LOG_2 = math.log(2.0)


def log_prior(prior_discount: float) -> tuple[float, float]:
    """Log-probabilities of the termination prior: (log p0, log(1 − p0)), with 0 < p0 < 1."""
    return math.log(prior_discount), math.log1p(-prior_discount)


def _product(probability: Tensor, value: Tensor) -> Tensor:
    """`probability * value` with 0 · (−inf) = 0, as the expectation over q_Δ needs it."""
    # Masks the factor, not the product: the gradient of 0 · (−inf) is NaN even where it is masked.
    return probability * value.masked_fill(probability == 0, 0.0)


def optimal_discount_logit(
    next_value: Tensor, log_prob_goal: Tensor, prior_discount: float
) -> Tensor:
    """Logit of the optimal dynamic discount q_Δ*(0).

    q_Δ*(0 | s, a) = σ( V(s', g) − log p_d(g | s, a) + logit p0 )   (paper, Proposition on q_T*)

    Args:
        next_value: (B,) value V(s', g) of the next state in nats; −inf where the goal cannot be
            reached any more (a terminal state).
        log_prob_goal: (B,) log p_d(g | s, a) in nats.
        prior_discount: p0, the prior probability of going on.

    Returns:
        (B,) logit; logit p0 where both inputs are −inf, since both choices are then equal.
    """
    log_p0, log_p1 = log_prior(prior_discount)
    undecided = torch.isneginf(next_value) & torch.isneginf(log_prob_goal)
    difference = torch.where(undecided, torch.zeros_like(next_value), next_value - log_prob_goal)
    return difference + (log_p0 - log_p1)


def bernoulli_kl(discount_logit: Tensor, prior_discount: float) -> Tensor:
    """KL(q_Δ ‖ p_Δ) in nats of the Bernoulli with q_Δ(0) = σ(discount_logit). Shape (B,)."""
    log_p0, log_p1 = log_prior(prior_discount)
    go_on, stop = torch.sigmoid(discount_logit), torch.sigmoid(-discount_logit)
    return _product(go_on, F.logsigmoid(discount_logit) - log_p0) + _product(
        stop, F.logsigmoid(-discount_logit) - log_p1
    )


def outcome_reward(
    log_prob_goal: Tensor,
    discount_logit: Tensor,
    prior_discount: float,
    discount_kl: Tensor | None = None,
) -> Tensor:
    """The reward that inference gives: r = q_Δ(1) · log p_d(g | s, a) − KL(q_Δ ‖ p_Δ).

    Args:
        log_prob_goal: (B,) log p_d(g | s, a) in nats.
        discount_logit: (B,) logit of any q_Δ(0), the optimal one or not.
        prior_discount: p0.
        discount_kl: (B,) KL(q_Δ ‖ p_Δ) in nats, where it is at hand already.

    Returns:
        (B,) reward in nats.
    """
    if discount_kl is None:
        discount_kl = bernoulli_kl(discount_logit, prior_discount)
    stop = torch.sigmoid(-discount_logit)
    return _product(stop, log_prob_goal) - discount_kl


def bellman_target(reward: Tensor, discount: Tensor, next_value: Tensor) -> Tensor:
    """Explicit form of the backup: r + discount · V(s', g), where 0 · (−inf) counts as 0. (B,)"""
    return reward + _product(discount, next_value)


def soft_bellman_target(log_prob_goal: Tensor, next_value: Tensor, prior_discount: float) -> Tensor:
    """The backup under the optimal q_Δ, in one stable expression. (B,)

    Q = logaddexp( log(1 − p0) + log p_d(g | s, a), log p0 + V(s', g) )

    Equals `bellman_target(outcome_reward(...), discount, next_value)` at the optimal discount.
    """
    log_p0, log_p1 = log_prior(prior_discount)
    return torch.logaddexp(log_prob_goal + log_p1, next_value + log_p0)


def effective_horizon(discount: Tensor) -> Tensor:
    """1 / (1 − q_Δ(0)): the expected number of steps until Δ = 1 if q_Δ stays as it is. (B,)

    Finite always: 1 − q_Δ(0) counts as no less than the precision of the discount's type.
    """
    return 1 / (1 - discount).clamp_min(torch.finfo(discount.dtype).eps)


def termination_probabilities(discount: Tensor) -> Tensor:
    """q_T of an episode, from the dynamic discounts along it.

    q_T(t) = q_Δ(1 | s_t, a_t) · Π_{i<t} q_Δ(0 | s_i, a_i)   (paper, section 3: T is the first t
    with Δ = 1). With q_Δ(0) = p0 everywhere it is the geometric prior (1 − p0) p0^t.

    Args:
        discount: (..., N) q_Δ(0) at the steps t = 0 … N − 1, in time order.

    Returns:
        (..., N + 1) q_T(0) … q_T(N − 1) and, last, Π_i q_Δ(0 | s_i, a_i): the probability that the
        outcome comes about after the episode's end. They sum to one.
    """
    going_on = discount.cumprod(-1)
    before = torch.cat([torch.ones_like(discount[..., :1]), going_on], dim=-1)
    return torch.cat([before[..., :-1] * (1 - discount), before[..., -1:]], dim=-1)


def action_prior_kl(
    log_prob: Tensor, actions: Tensor, action_prior: Distribution | None = None
) -> Tensor:
    """One-sample estimate of KL(π(·|s, g) ‖ p(·|s)): log π(a|s, g) − log p(a|s), in nats. (B,)

    Args:
        log_prob: (B,) log π(a | s, g) of the given actions.
        actions: (B, A) actions in [−1, 1]^A.
        action_prior: p(a | s) as any `torch.distributions` object over actions, with event shape
            (A,) or (); None is the uniform distribution on the box, log p(a) = −A log 2.

    Returns:
        (B,) log ratio; non-negative in expectation over a ~ π.
    """
    if action_prior is None:
        return log_prob + actions.shape[-1] * LOG_2
    log_prior_prob: Tensor = action_prior.log_prob(actions)
    if log_prior_prob.dim() > log_prob.dim():
        log_prior_prob = log_prior_prob.sum(-1)
    return log_prob - log_prior_prob


def gaussian_kl(mean: Tensor, log_std: Tensor, mean_0: Tensor, log_std_0: Tensor) -> Tensor:
    """KL( N(mean, std) ‖ N(mean_0, std_0) ) in nats, of each coordinate by itself. (...)

    It is also that of the two behind any one-to-one map of both, such as tanh.
    """
    ratio = torch.exp(2 * (log_std - log_std_0))
    deviation = (mean - mean_0) * torch.exp(-log_std_0)
    return 0.5 * (ratio + deviation.square() - 1) + log_std_0 - log_std


def soft_value(q_value: Tensor, action_kl: Tensor, kl_weight: Tensor | float = 1.0) -> Tensor:
    """V(s, g) = Q(s, a, g) − kl_weight · KL(π ‖ p), one sample a ~ π. (B,)

    A weight of one gives the exact posterior and the bound V ≤ log p(g | s).
    """
    return q_value - kl_weight * action_kl


def critic_loss(q_values: Tensor, target: Tensor) -> Tensor:
    """Σ over the ensemble of E[(Q(s, a, g) − target)²] / 2.

    Args:
        q_values: (E, B) predictions of E critics.
        target: (B,) backup, a constant (detach it before the call).

    Returns:
        Scalar loss. The half makes the gradient the temporal-difference error itself.
    """
    return 0.5 * len(q_values) * F.mse_loss(q_values, target.expand_as(q_values))


def policy_loss(q_value: Tensor, action_kl: Tensor, kl_weight: Tensor | float = 1.0) -> Tensor:
    """−E[ Q(s, a, g) − kl_weight · KL(π ‖ p) ] over a ~ π, reparameterised. Scalar."""
    return -soft_value(q_value, action_kl, kl_weight).mean()


def expectile_loss(difference: Tensor, expectile: float) -> Tensor:
    """E[ |τ − 1(u < 0)| u² ], least where a value V is the τ-expectile of Q. Scalar.

    Implicit Q-learning's (Kostrikov et al. 2022, eq. 5): 0.5 gives the mean over the actions of a
    log, and towards 1 the best of them.

    Args:
        difference: (B,) u = Q(s, a, g) − V(s, g) of logged actions.
        expectile: τ in (0, 1).
    """
    return torch.where(difference > 0, expectile, 1 - expectile).mul(difference.square()).mean()


def linex_loss(difference: Tensor, kl_weight: Tensor | float, limit: float = 5.0) -> Tensor:
    """w E[ exp(u/w) − u/w − 1 ], least where V = w log E_{a~π_β} exp(Q(s, a, g)/w). Scalar.

    The soft value against the behaviour as action prior, from logged actions alone (Garg et al.
    2023, arXiv 2301.02328, eq. 10). Beyond `limit` the exponential goes on as its tangent, so that
    one action cannot outweigh a whole batch; a difference of more than `limit` kl weights is then
    under-rated.

    Args:
        difference: (B,) u = Q(s, a, g) − V(s, g) of logged actions, in nats.
        kl_weight: w, positive.
        limit: In units of w.
    """
    scaled = difference / kl_weight
    within = scaled.clamp_max(limit)
    grown = torch.exp(within) * (1 + scaled - within)
    return (kl_weight * (grown - scaled - 1)).mean()


def advantage_weights(advantage: Tensor, kl_weight: Tensor | float, limit: float = 100.0) -> Tensor:
    """exp((Q − V)/w): how much likelier the posterior makes a logged action, at most `limit`. (B,)

    The weights of advantage-weighted regression (Peng et al. 2019, arXiv 1910.00177), by which the
    posterior π* ∝ π_β exp(Q/w) is projected onto the policy.

    Args:
        advantage: (B,) Q(s, a, g) − V(s, g) in nats.
        kl_weight: w, positive.
        limit: Largest weight.
    """
    return torch.exp((advantage / kl_weight).clamp_max(math.log(limit)))


def dynamics_loss(log_prob_next: Tensor) -> Tensor:
    """Negative log-likelihood −E[ log p_ψ(φ(s') | s, a) ] of the next achieved goal. Scalar."""
    return -log_prob_next.mean()


def temperature_loss(log_kl_weight: Tensor, action_kl: Tensor, target_kl: float) -> Tensor:
    """Dual loss that raises the KL weight while the policy's KL is above its target. Scalar.

    The entropy constraint of SAC (Haarnoja et al. 2018), written with the KL to the action prior:
    a target entropy of −A nats on [−1, 1]^A is a target KL of A (1 + log 2) nats.
    """
    return -(log_kl_weight * (action_kl.detach() - target_kl)).mean()
