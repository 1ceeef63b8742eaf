"""Objectives by name, and how a configuration makes one."""

from __future__ import annotations

import inspect
from typing import Any

from rllib_odac.objectives.base import Backup, Objective
from rllib_odac.objectives.her import HERObjective
from rllib_odac.objectives.odac import ODACObjective

OBJECTIVES: dict[str, type[Objective]] = {"odac": ODACObjective, "her": HERObjective}

__all__ = ["OBJECTIVES", "Backup", "HERObjective", "ODACObjective", "Objective", "make_objective"]


def make_objective(objective: str | type[Objective], **settings: Any) -> Objective:
    """Makes an objective from its name or class and its settings.

    Raises:
        ValueError: If there is no objective of that name, or it has no such settings.
    """
    if isinstance(objective, str):
        if objective not in OBJECTIVES:
            raise ValueError(f"objective is '{objective}', but must be one of {list(OBJECTIVES)}.")
        objective = OBJECTIVES[objective]
    try:
        inspect.signature(objective).bind(**settings)
    except TypeError as error:
        raise ValueError(f"objective_settings do not fit {objective.__name__}: {error}.") from None
    return objective(**settings)
