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
from rllib_odac.envs.goals import Goals

if TYPE_CHECKING:
    from rllib_odac.config import ODACConfig


class UVDObjective(DiscountedObjective):
    """r = 1 where the goal is reached, else 0; Q(s', a', g) ≥ c·F(g | s', a').

    Schroecker & Isbell 2020 (arXiv 2002.06473). Values are discounted probabilities of being at the
    goal, so that the density F of discounted futures gives them without waiting for rewards to
    spread. See `FutureDensity` for F, for c and for what the bound leaves out.

    The authors' target is max(γ Q(s', a', g), c F(g | s', a')) of the episodes' own goals. Here it
    is r + γ max(Q, c F), and the critics' goals are relabelled as under every other objective;
    `relabel={"own": 1.0}` is theirs. Where chance decides, futures as goals make risks look small.

    Args:
        goals: When a goal is reached: within a distance ε of its judged coordinates.
        discount: γ. The replay draws futures by `prior_discount`, which has to be the same.
        flow_hidden: Width of the flow's hidden layers.
        flow_layers: Its coupling layers.
    """

    def __init__(
        self,
        goals: Goals,
        discount: float = 0.95,
        flow_hidden: int = 64,
        flow_layers: int = 4,
    ) -> None:
        super().__init__(discount)
        if not (goals.success_distance or 0) > 0:
            raise ValueError(f"success_distance is {goals.success_distance}, but must be positive.")
        if goals.rotation is not None:
            raise ValueError(
                "objective is 'uvd', but must be another one where goals have a rotation: its "
                "values are bounded by the density in a ball around a position."
            )
        if flow_hidden < 1:
            raise ValueError(f"flow_hidden is {flow_hidden}, but must be at least 1.")
        if flow_layers < 2:  # each changes every other coordinate
            raise ValueError(f"flow_layers is {flow_layers}, but must be at least 2.")
        self.goals = goals
        self.auxiliary = FutureDensity(goals, discount, flow_hidden, flow_layers)

    @classmethod
    def settings(cls, config: ODACConfig) -> dict[str, Any]:
        return super().settings(config) | {"goals": config.judged_goals}

    def reward_and_discount(
        self, batch: JudgedTransitions, next_value: Tensor
    ) -> RewardAndDiscount:
        transitions = batch.transitions
        reached = self.goals.reached(transitions.next_achieved_goal, transitions.goal)
        return self.discounted(reached.to(next_value.dtype))

    def value_bounds(self, max_log_prob: float) -> tuple[float | None, float | None]:
        # Not 0 from below: the KL of a policy that still seeks an unreachable goal is paid too.
        return None, 1 / (1 - self.discount)
