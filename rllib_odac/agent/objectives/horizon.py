"""The outcome-driven objective with a known time: be at the goal at the end of the episode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from rllib_odac.agent.objectives.base import JudgedTransitions, Objective, RewardAndDiscount


class HorizonObjective(Objective):
    """r = 1[t' = T] log p_ψ(g | s, a), discount 1 until then   (paper, section 3, t* = T known).

    There is no termination time to infer. T is the environment's time limit, and the last number
    of an observation is t / T (`envs.time.show_time`). Hindsight takes the goals that were reached
    at T.
    """

    uses_dynamics = True
    uses_time = True
    relabel: ClassVar[Mapping[str, float]] = {"final": 0.8, "own": 0.2}

    def reward_and_discount(
        self, batch: JudgedTransitions, next_value: Tensor
    ) -> RewardAndDiscount:
        is_last = batch.transitions.next_observation[:, -1] >= 1
        log_prob_goal = batch.log_prob_goal
        return RewardAndDiscount(
            torch.where(is_last, log_prob_goal, 0.0),
            torch.where(is_last, 0.0, 1.0).to(log_prob_goal.dtype),
            metrics={"log_prob_goal": log_prob_goal},
        )

    def value_of_staying(self, batch: JudgedTransitions) -> Tensor:
        # It will still be there at T.
        return batch.log_prob_goal

    def value_bounds(self, max_log_prob: float) -> tuple[float | None, float | None]:
        # The KL is not negative, and the reward is paid once.
        return None, max_log_prob
