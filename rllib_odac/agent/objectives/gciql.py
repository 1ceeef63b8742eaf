"""Goal-conditioned implicit Q-learning and behaviour cloning, which learn from logs too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from rllib_odac.agent.objectives.base import JudgedTransitions, RewardAndDiscount
from rllib_odac.agent.objectives.her import HERObjective
from rllib_odac.agent.rules import DDPG_BC, EXPECTILE, IMITATION


class GCIQLObjective(HERObjective):
    """r = 0 where the goal is reached, which ends it, else −1; values are expectiles of a log's.

    Kostrikov et al. 2022 (arXiv 2110.06169) with hindsight goals, as OGBench has it (Park et al.
    2024): the policy follows DDPG+BC.
    """

    rules: ClassVar[Mapping[str, Any]] = {"values": EXPECTILE, "extraction": DDPG_BC}

    def reward_and_discount(
        self, batch: JudgedTransitions, next_value: Tensor
    ) -> RewardAndDiscount:
        backup = super().reward_and_discount(batch, next_value)
        transitions = batch.transitions
        reached = self.goals.reached(transitions.next_achieved_goal, transitions.goal)
        return backup._replace(discount=backup.discount.masked_fill(reached, 0.0))


class GCBCObjective(GCIQLObjective):
    """The policy imitates, given a goal, what led to it (Ghosh et al. 2021, arXiv 1912.06088).

    Values are the behaviour's own, which the policy does not follow.
    """

    relabel: ClassVar[Mapping[str, float]] = {"future": 1.0}
    rules: ClassVar[Mapping[str, Any]] = {"values": EXPECTILE, "extraction": IMITATION}
