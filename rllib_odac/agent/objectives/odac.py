"""The outcome-driven objective: reward and discount inferred from "the goal comes about"."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rllib_odac.agent.objectives.base import JudgedTransitions, Objective, RewardAndDiscount
from rllib_odac.maths.losses import bernoulli_kl, optimal_discount_logit, outcome_reward

if TYPE_CHECKING:
    from rllib_odac.config import ODACConfig


class ODACObjective(Objective):
    """r = q_Δ(1) log p_ψ(g|s,a) − KL(q_Δ‖p_Δ), discount = q_Δ(0)   (paper, section 4).

    Args:
        prior_discount: p0 = p_Δ(0), the prior probability of going on.
        learn_discount: False fixes q_Δ = p_Δ, the ablation "fixed q_T": discount p0 and reward
            (1 − p0) log p_ψ.
        max_discount: Upper limit on q_Δ(0), or None. Under the optimal q_Δ a value that is too
            high decays by only −log p0 a sweep of the target network, because log p_ψ drops out of
            the target as q_Δ(0) → 1. Under a limit c < 1 the backup contracts by c.
    """

    uses_dynamics = True

    def __init__(
        self,
        prior_discount: float = 0.95,
        learn_discount: bool = True,
        max_discount: float | None = None,
    ) -> None:
        self.prior_discount = prior_discount
        self.learn_discount = learn_discount
        self.max_discount = max_discount

    @classmethod
    def settings(cls, config: ODACConfig) -> dict[str, Any]:
        limit = config.max_discount
        return {
            "prior_discount": config.prior_discount,
            "learn_discount": config.learn_discount,
            "max_discount": config.prior_discount if limit == "prior" else limit,
        }

    def reward_and_discount(
        self, batch: JudgedTransitions, next_value: Tensor
    ) -> RewardAndDiscount:
        log_prob_goal = batch.log_prob_goal
        if self.learn_discount:
            logit = optimal_discount_logit(next_value, log_prob_goal, self.prior_discount)
            if self.max_discount is not None:
                logit = logit.clamp_max(_logit(self.max_discount))
        else:
            logit = torch.full_like(log_prob_goal, _logit(self.prior_discount))
        discount_kl = bernoulli_kl(logit, self.prior_discount)
        return RewardAndDiscount(
            outcome_reward(log_prob_goal, logit, self.prior_discount, discount_kl),
            torch.sigmoid(logit),
            metrics={"log_prob_goal": log_prob_goal, "discount_kl": discount_kl},
        )

    def value_bounds(self, max_log_prob: float) -> tuple[float | None, float | None]:
        # Neither KL is negative and the reward averages log-densities, so V ≤ max log p_ψ for
        # every KL weight of at least zero.
        return None, max_log_prob


def _logit(probability: float) -> float:
    return math.log(probability) - math.log1p(-probability)
