"""Relabelling strategies: which goal a replayed transition is judged by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum


class RelabelStrategy(StrEnum):
    """Where a relabelled goal comes from (Andrychowicz et al. 2017, section 4.5)."""

    FUTURE = "future"  # a state reached later in the same episode
    FINAL = "final"  # the episode's last state
    EPISODE = "episode"  # any state of the same episode
    RANDOM = "random"  # any state in the buffer, reachable from here or not
    OWN = "own"  # no relabelling: the goal that the episode was given


def validate_relabelling(relabel: Mapping[str, float]) -> dict[RelabelStrategy, float]:
    """Checks a mixture of strategies and returns it with its keys as `RelabelStrategy`.

    Raises:
        ValueError: On an unknown strategy, a negative probability or a sum other than one.
    """
    allowed = [str(strategy) for strategy in RelabelStrategy]
    for name, probability in relabel.items():
        if name not in allowed:
            raise ValueError(f"relabel has the strategy '{name}', but must use {allowed}.")
        if not (isinstance(probability, int | float) and 0.0 <= probability <= 1.0):
            raise ValueError(f"relabel['{name}'] is {probability}, but must be in [0, 1].")
    total = math.fsum(relabel.values())
    if not math.isclose(total, 1.0, abs_tol=1e-6):
        raise ValueError(f"The probabilities in relabel sum to {total:g}, but must sum to 1.")
    return {RelabelStrategy(name): float(probability) for name, probability in relabel.items()}
