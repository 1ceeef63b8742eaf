"""Soft actor-critic with a reward made by hand, which knows the distance to the goal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from rllib_odac.agent.objectives.base import (
    DiscountedObjective,
    JudgedTransitions,
    RewardAndDiscount,
)
from rllib_odac.envs.goals import Goals

if TYPE_CHECKING:
    from rllib_odac.config import ODACConfig

EVERY_COORDINATE = Goals()


class SACObjective(DiscountedObjective):
    """r = −‖φ(s') − g‖ − ‖hand' − object'‖ in goal scales, discount γ (Haarnoja et al. 2018).

    The second term leads an arm to what it has to move; tasks without an arm have none. Goals are
    not relabelled.

    Args:
        discount: γ.
        goals: Which coordinates distance is measured over, and where hand and object are.
    """

    relabel: ClassVar[Mapping[str, float]] = {"own": 1.0}

    def __init__(
        self,
        discount: float = 0.95,
        goals: Goals = EVERY_COORDINATE,
    ) -> None:
        super().__init__(discount)
        self.goals = goals

    @classmethod
    def settings(cls, config: ODACConfig) -> dict[str, Any]:
        return super().settings(config) | {"goals": config.goals}

    def reward_and_discount(
        self, batch: JudgedTransitions, next_value: Tensor
    ) -> RewardAndDiscount:
        transitions = batch.transitions
        distance = self.goals.distance(transitions.next_achieved_goal, transitions.goal)
        if self.goals.hand_object is not None:
            hand, thing = (transitions.next_observation[:, p] for p in self.goals.hand_object)
            distance = distance + (hand - thing).norm(dim=-1)
        return self.discounted(-distance / batch.goal_scale)

    def value_bounds(self, max_log_prob: float) -> tuple[float | None, float | None]:
        return None, 0.0  # rewards are at most 0 and the KL is not negative
