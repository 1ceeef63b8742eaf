"""Hindsight experience replay: a sparse reward on relabelled goals, discounted by a constant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from rllib_odac.agent.objectives.base import (
    DiscountedObjective,
    JudgedTransitions,
    RewardAndDiscount,
)

if TYPE_CHECKING:
    from rllib_odac.config import ODACConfig


class HERObjective(DiscountedObjective):
    """r = 0 where φ(s') is within `success_distance` of the goal, else −1; discount γ.

    Andrychowicz et al. 2017, with soft actor-critic as the learner below it. Reaching the goal ends
    no episode, and every coordinate of the goal counts.

    Args:
        success_distance: In the environment's units.
        discount: γ.
    """

    def __init__(self, success_distance: float, discount: float = 0.95) -> None:
        super().__init__(discount)
        if not success_distance > 0:
            raise ValueError(f"success_distance is {success_distance}, but must be positive.")
        self.success_distance = success_distance

    @classmethod
    def settings(cls, config: ODACConfig) -> dict[str, Any]:
        return super().settings(config) | {"success_distance": config.goal_success_distance}

    def reward_and_discount(
        self, batch: JudgedTransitions, next_value: Tensor
    ) -> RewardAndDiscount:
        transitions = batch.transitions
        distance = (transitions.next_achieved_goal - transitions.goal).norm(dim=-1)
        reward = (distance < self.success_distance).to(next_value.dtype) - 1
        return self.discounted(reward, transitions.terminated)

    def value_bounds(self, max_log_prob: float) -> tuple[float | None, float | None]:
        # Rewards are at most 0 and the KL is not negative. From below there is no bound: with the
        # KL's weight the value can be lower than −1/(1−γ).
        return None, 0.0
