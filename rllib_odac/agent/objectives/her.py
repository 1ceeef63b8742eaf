"""Hindsight experience replay: a sparse reward on relabelled goals, discounted by a constant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from rllib_odac.agent.objectives.base import Backup, Objective, constant_discount

if TYPE_CHECKING:
    from rllib_odac.config import ODACConfig


class HERObjective(Objective):
    """r = 0 where φ(s') is within `success_distance` of the goal, else −1; discount γ.

    Andrychowicz et al. 2017, with soft actor-critic as the learner below it. Reaching the goal ends
    nothing; a terminal state pays its reward for ever, or dying would be better than failing. Every
    coordinate of the goal counts: a goal that names hand and object wants both, as it does of ODAC.

    Args:
        success_distance: in the task's units.
        discount: γ.
    """

    def __init__(self, success_distance: float, discount: float = 0.95) -> None:
        if not success_distance > 0:
            raise ValueError(f"success_distance is {success_distance}, but must be positive.")
        if not 0 < discount < 1:
            raise ValueError(f"discount is {discount}, but must be in (0, 1).")
        self.success_distance = success_distance
        self.discount = discount

    @classmethod
    def settings(cls, config: ODACConfig) -> dict[str, Any]:
        return {
            "success_distance": config.goal_success_distance,
            "discount": config.prior_discount,
        }

    def backup(self, batch: Mapping[str, Tensor], next_value: Tensor) -> Backup:
        distance = (batch["next_achieved_goal"] - batch["goal"]).norm(dim=-1)
        reward = (distance < self.success_distance).to(next_value.dtype) - 1
        return constant_discount(reward, self.discount, batch["terminated"])

    def value_bounds(self, max_log_prob: float) -> tuple[float | None, float | None]:
        # Rewards are at most 0 and the KL is not negative. There is no bound from below: with
        # the KL's weight the value can be lower than −1/(1−γ).
        return None, 0.0
