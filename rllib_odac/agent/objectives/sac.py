"""Soft actor-critic with a reward made by hand: an opponent that is told the distance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from rllib_odac.agent.objectives.base import Backup, Objective, constant_discount

if TYPE_CHECKING:
    from rllib_odac.config import ODACConfig
    from rllib_odac.rl_module import ODACRLModule


class SACObjective(Objective):
    """r = −‖φ(s') − g‖ − ‖hand' − object'‖ in goal scales, discount γ (Haarnoja et al. 2018).

    The second term leads an arm to what it has to move; tasks without an arm have none. A terminal
    state pays its reward for ever, or dying would be better than failing.

    Args:
        discount: γ.
        measured: Coordinates of the goal that distance is measured over, those of the object.
        hand_object: Where the places of hand and object stand in an observation, or None.
    """

    relabel: ClassVar[Mapping[str, float]] = {"own": 1.0}

    def __init__(
        self,
        discount: float = 0.95,
        measured: slice = slice(None),
        hand_object: tuple[slice, slice] | None = None,
    ) -> None:
        if not 0 < discount < 1:
            raise ValueError(f"discount is {discount}, but must be in (0, 1).")
        self.discount = discount
        self.measured = measured
        self.hand_object = hand_object

    @classmethod
    def settings(cls, config: ODACConfig) -> dict[str, Any]:
        facts = {} if config.env is None else config.environment_facts
        return {
            "discount": config.prior_discount,
            **{name: facts[name] for name in ("measured", "hand_object") if name in facts},
        }

    def forward(
        self, module: ODACRLModule, batch: Mapping[str, Tensor], outputs: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """`dense_reward` (B,), in goal scales."""
        way_left = (batch["next_achieved_goal"] - batch["goal"])[:, self.measured]
        distance = way_left.norm(dim=-1)
        if self.hand_object is not None:
            hand, thing = (batch["next_observation"][:, place] for place in self.hand_object)
            distance = distance + (hand - thing).norm(dim=-1)
        return {"dense_reward": -distance / module.goal_scale}

    def backup(self, batch: Mapping[str, Tensor], next_value: Tensor) -> Backup:
        return constant_discount(batch["dense_reward"], self.discount, batch["terminated"])

    def value_bounds(self, max_log_prob: float) -> tuple[float | None, float | None]:
        return None, 0.0  # rewards are at most 0 and the KL is not negative
