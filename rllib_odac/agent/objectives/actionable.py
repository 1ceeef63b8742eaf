"""Actionable Models: conservative goal-conditioned Q-learning with goals from other episodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from rllib_odac.agent.objectives.her import HERObjective
from rllib_odac.agent.rules import EXPLICIT, POSTERIOR


class ActionableObjective(HERObjective):
    """HER whose values of actions that the log does not hold are pushed down.

    Chebotar et al. 2021 (arXiv 2104.07749). Half of the goals are those of the episode's own future
    and half any state's: values chain such a goal to the episodes that reach it, since a target
    goes on with the value at the episode's end. The paper's regulariser samples actions by exp Q;
    here it is conservative Q-learning's, whose gradient is the same expectation.
    """

    relabel: ClassVar[Mapping[str, float]] = {"future": 0.5, "random": 0.5}
    rules: ClassVar[Mapping[str, Any]] = {
        "values": EXPLICIT,
        "extraction": POSTERIOR,
        "conservative_weight": 1.0,
    }
