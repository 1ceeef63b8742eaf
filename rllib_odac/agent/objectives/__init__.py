"""Objectives by name, and how a configuration makes one."""

from __future__ import annotations

import inspect
from typing import Any

from rllib_odac.agent.objectives.actionable import ActionableObjective
from rllib_odac.agent.objectives.auxiliary import Auxiliary, AuxiliaryOutput
from rllib_odac.agent.objectives.base import (
    AnyObjective,
    DirectObjective,
    DiscountedObjective,
    JudgedTransitions,
    Objective,
    RewardAndDiscount,
)
from rllib_odac.agent.objectives.contrastive import ContrastiveObjective
from rllib_odac.agent.objectives.discern import DISCERNObjective
from rllib_odac.agent.objectives.gciql import GCBCObjective, GCIQLObjective
from rllib_odac.agent.objectives.her import HERObjective
from rllib_odac.agent.objectives.horizon import HorizonObjective
from rllib_odac.agent.objectives.odac import ODACObjective
from rllib_odac.agent.objectives.quasimetric import QuasimetricObjective
from rllib_odac.agent.objectives.sac import SACObjective
from rllib_odac.agent.objectives.uvd import UVDObjective
from rllib_odac.settings import shown

OBJECTIVES: dict[str, type[AnyObjective]] = {
    "odac": ODACObjective,
    "horizon": HorizonObjective,
    "her": HERObjective,
    "sac": SACObjective,
    "discern": DISCERNObjective,
    "uvd": UVDObjective,
    "contrastive": ContrastiveObjective,
    "quasimetric": QuasimetricObjective,
    "gciql": GCIQLObjective,
    "gcbc": GCBCObjective,
    "actionable": ActionableObjective,
}

__all__ = [
    "OBJECTIVES",
    "ActionableObjective",
    "AnyObjective",
    "Auxiliary",
    "AuxiliaryOutput",
    "ContrastiveObjective",
    "DISCERNObjective",
    "DirectObjective",
    "DiscountedObjective",
    "GCBCObjective",
    "GCIQLObjective",
    "HERObjective",
    "HorizonObjective",
    "JudgedTransitions",
    "ODACObjective",
    "Objective",
    "QuasimetricObjective",
    "RewardAndDiscount",
    "SACObjective",
    "UVDObjective",
    "make_objective",
    "objective_class",
]


def objective_class(objective: str | type[AnyObjective]) -> type[AnyObjective]:
    """The class of an objective, from its name or itself.

    Raises:
        ValueError: If there is no objective of that name, or it is no class of one.
    """
    if isinstance(objective, str) and objective in OBJECTIVES:
        return OBJECTIVES[objective]
    if isinstance(objective, type) and issubclass(objective, AnyObjective):
        return objective
    raise ValueError(
        f"objective is {shown(objective)}, but must be one of {list(OBJECTIVES)}, or a subclass of "
        "Objective or DirectObjective."
    )


def make_objective(objective: str | type[AnyObjective], **settings: Any) -> AnyObjective:
    """Makes an objective from its name or class and its settings.

    Raises:
        ValueError: If there is no objective of that name, or it has no such settings.
    """
    kind = objective_class(objective)
    try:
        inspect.signature(kind).bind(**settings)
    except TypeError as error:
        raise ValueError(f"objective_settings do not fit {kind.__name__}: {error}.") from None
    return kind(**settings)
