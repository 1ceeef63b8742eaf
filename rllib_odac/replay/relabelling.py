"""Where goals come from: those a replayed transition is judged by, and those to explore with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from rllib_odac.settings import shown

_Name = TypeVar("_Name", bound=StrEnum)


class RelabelStrategy(StrEnum):
    """Where a relabelled goal comes from (Andrychowicz et al. 2017, section 4.5)."""

    FUTURE = "future"  # a state reached later in the same episode
    DISCOUNTED = "discounted"  # one of those after so many steps as a geometric clock rings
    FINAL = "final"  # the episode's last state
    EPISODE = "episode"  # any state of the same episode
    RANDOM = "random"  # any state in the buffer, reachable from here or not
    OWN = "own"  # no relabelling: the goal that the episode was given


class ExplorationGoals(StrEnum):
    """Where the goal of an episode that is collected for training comes from."""

    ENVIRONMENT = "environment"  # its own distribution, as in evaluation
    ACHIEVED = "achieved"  # any state reached so far: nobody has to know what can be reached
    RARE = "rare"  # the same, the more often the fewer others are near it


def validate_relabelling(relabel: Mapping[str, float]) -> dict[RelabelStrategy, float]:
    """Checks a mixture of strategies and returns it with its keys as `RelabelStrategy`.

    Raises:
        ValueError: On an unknown strategy, a negative probability or a sum other than one.
    """
    return _validate_mixture("relabel", relabel, RelabelStrategy)


def validate_exploration_goals(goals: str | Mapping[str, float]) -> dict[ExplorationGoals, float]:
    """Checks the name of a source of goals, or a mixture of them, and returns it as a mixture.

    Raises:
        ValueError: On an unknown source, a negative probability or a sum other than one.
    """
    mixture = {goals: 1.0} if isinstance(goals, str) else goals
    return _validate_mixture("exploration_goals", mixture, ExplorationGoals)


def _validate_mixture(
    setting: str, mixture: Mapping[str, float], names: type[_Name]
) -> dict[_Name, float]:
    allowed = [str(name) for name in names]
    for name, probability in mixture.items():
        if name not in allowed:
            raise ValueError(f"{setting} has {shown(name)}, but must use {allowed}.")
        if not (isinstance(probability, int | float) and 0.0 <= probability <= 1.0):
            raise ValueError(f"{setting}['{name}'] is {shown(probability)}, but must be in [0, 1].")
    total = math.fsum(mixture.values())
    if not math.isclose(total, 1.0, abs_tol=1e-6):
        raise ValueError(f"{setting} has probabilities that sum to {total:g}, but must sum to 1.")
    return {names(name): float(probability) for name, probability in mixture.items()}
