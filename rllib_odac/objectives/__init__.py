"""Objectives by name, and how a configuration makes one."""

from __future__ import annotations

from typing import Any

from rllib_odac.objectives.base import Backup, Objective
from rllib_odac.objectives.odac import ODACObjective

OBJECTIVES: dict[str, type[Objective]] = {"odac": ODACObjective}

__all__ = ["OBJECTIVES", "Backup", "ODACObjective", "Objective", "make_objective"]


def make_objective(objective: str | type[Objective], **settings: Any) -> Objective:
    """Makes an objective from its name or class and its settings.

    Raises:
        ValueError: If there is no objective of that name.
    """
    if isinstance(objective, str):
        if objective not in OBJECTIVES:
            raise ValueError(f"objective is '{objective}', but must be one of {list(OBJECTIVES)}.")
        objective = OBJECTIVES[objective]
    return objective(**settings)
