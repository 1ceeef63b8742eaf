"""The outcome-driven objective: reward and discount inferred from "the goal comes about"."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rllib_odac.agent.objectives.base import Backup, Objective
from rllib_odac.maths.losses import bernoulli_kl, optimal_discount_logit, outcome_reward

if TYPE_CHECKING:
    from rllib_odac.config import ODACConfig


class ODACObjective(Objective):
    """r = q_Δ(1) log p_ψ(g|s,a) − KL(q_Δ‖p_Δ), discount = q_Δ(0)   (paper, section 4).

    Args:
        prior_discount: p0 = p_Δ(0), the prior probability of going on.
        learn_discount: False fixes q_Δ = p_Δ, the ablation "fixed q_T": discount p0 and reward
            (1 − p0) log p_ψ.
        max_discount: Upper limit on q_Δ(0), or None. The optimal q_Δ lets values that are too high
            decay by only −log p0 a sweep, because log p_ψ drops out of the backup as q_Δ(0) → 1.
            Below a limit c < 1 the backup contracts by c, and any q_Δ keeps the lower bound.
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

    def backup(self, batch: Mapping[str, Tensor], next_value: Tensor) -> Backup:
        log_prob_goal = batch["log_prob_goal"]
        prior_logit = _logit(self.prior_discount)
        if self.learn_discount:
            logit = optimal_discount_logit(next_value, log_prob_goal, self.prior_discount)
            if self.max_discount is not None:
                logit = logit.clamp_max(_logit(self.max_discount))
        else:
            logit = torch.full_like(log_prob_goal, prior_logit)
        # Nothing follows a terminal state: V = −inf there, and q_Δ has to stop.
        logit = torch.where(batch["terminated"], -torch.inf, logit)
        discount = torch.sigmoid(logit)
        discount_kl = bernoulli_kl(logit, self.prior_discount)
        reward = outcome_reward(log_prob_goal, logit, self.prior_discount, discount_kl)
        metrics = {"log_prob_goal": log_prob_goal, "discount_kl": discount_kl}
        return Backup(reward, discount, metrics)

    def value_bounds(self, max_log_prob: float) -> tuple[float | None, float | None]:
        # Both KL terms are non-negative and rewards average log-densities, so V ≤ max log p_ψ.
        return None, max_log_prob


def _logit(probability: float) -> float:
    return math.log(probability) - math.log1p(-probability)
