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

if TYPE_CHECKING:
    from rllib_odac.config import ODACConfig


class SACObjective(DiscountedObjective):
    """r = −‖φ(s') − g‖ − ‖hand' − object'‖ in goal scales, discount γ (Haarnoja et al. 2018).

    The second term leads an arm to what it has to move; tasks without an arm have none. Goals are
    not relabelled.

    Args:
        discount: γ.
        measured: Coordinates of the goal that distance is measured over.
        hand_object: Where an observation holds the positions of hand and object, or None.
    """

    relabel: ClassVar[Mapping[str, float]] = {"own": 1.0}

    def __init__(
        self,
        discount: float = 0.95,
        measured: slice = slice(None),
        hand_object: tuple[slice, slice] | None = None,
    ) -> None:
        super().__init__(discount)
        self.measured = measured
        self.hand_object = hand_object

    @classmethod
    def settings(cls, config: ODACConfig) -> dict[str, Any]:
        facts = {} if config.env is None else config.environment_facts
        return super().settings(config) | {
            name: facts[name] for name in ("measured", "hand_object") if name in facts
        }

    def reward_and_discount(
        self, batch: JudgedTransitions, next_value: Tensor
    ) -> RewardAndDiscount:
        transitions = batch.transitions
        offset = (transitions.next_achieved_goal - transitions.goal)[:, self.measured]
        distance = offset.norm(dim=-1)
        if self.hand_object is not None:
            hand, thing = (transitions.next_observation[:, part] for part in self.hand_object)
            distance = distance + (hand - thing).norm(dim=-1)
        return self.discounted(-distance / batch.goal_scale, transitions.terminated)

    def value_bounds(self, max_log_prob: float) -> tuple[float | None, float | None]:
        return None, 0.0  # rewards are at most 0 and the KL is not negative
