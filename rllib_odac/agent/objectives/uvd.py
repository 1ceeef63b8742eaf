"""Universal value density: a sparse reward, and values bounded by a learned density of futures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from rllib_odac.agent.objectives.base import (
    DiscountedObjective,
    JudgedTransitions,
    RewardAndDiscount,
)
from rllib_odac.agent.objectives.future_density import FutureDensity

if TYPE_CHECKING:
    from rllib_odac.config import ODACConfig


class UVDObjective(DiscountedObjective):
    """r = 1 where φ(s') is within `success_distance` of g, else 0; Q(s', a', g) ≥ c·F(g | s', a').

    Schroecker & Isbell 2020 (arXiv 2002.06473). Values are discounted probabilities of being at the
    goal, so that the density F of discounted futures gives them without waiting for rewards to
    spread. See `FutureDensity` for F, for c and for what the bound leaves out.

    The critics' goals are relabelled as under every other objective. Where chance decides, futures
    as goals make risks look small; `relabel={"random": 0.8, "own": 0.2}` does without them.

    Args:
        success_distance: ε in the environment's units, of all coordinates of a goal together.
        discount: γ. The replay draws futures by `prior_discount`, which has to be the same.
        flow_hidden: Width of the flow's hidden layers.
        flow_layers: Its coupling layers.
    """

    def __init__(
        self,
        success_distance: float,
        discount: float = 0.95,
        flow_hidden: int = 64,
        flow_layers: int = 4,
    ) -> None:
        super().__init__(discount)
        if not success_distance > 0:
            raise ValueError(f"success_distance is {success_distance}, but must be positive.")
        if flow_hidden < 1:
            raise ValueError(f"flow_hidden is {flow_hidden}, but must be at least 1.")
        if flow_layers < 2:  # each changes every other coordinate
            raise ValueError(f"flow_layers is {flow_layers}, but must be at least 2.")
        self.success_distance = success_distance
        self.auxiliary = FutureDensity(success_distance, discount, flow_hidden, flow_layers)

    @classmethod
    def settings(cls, config: ODACConfig) -> dict[str, Any]:
        return super().settings(config) | {"success_distance": config.goal_success_distance}

    def reward_and_discount(
        self, batch: JudgedTransitions, next_value: Tensor
    ) -> RewardAndDiscount:
        transitions = batch.transitions
        distance = (transitions.next_achieved_goal - transitions.goal).norm(dim=-1)
        reward = (distance < self.success_distance).to(next_value.dtype)
        return self.discounted(reward, transitions.terminated)

    def value_bounds(self, max_log_prob: float) -> tuple[float | None, float | None]:
        # Not 0 from below: the KL of a policy that still seeks an unreachable goal is paid too.
        return None, 1 / (1 - self.discount)
