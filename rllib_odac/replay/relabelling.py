"""`RelabelStrategy`: where the goals come from that replayed transitions are judged by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

import torch
from torch import Tensor

from rllib_odac.settings import shown

NUM_NEAR = 8  # states of which "near" is the nearest

_Name = TypeVar("_Name", bound=StrEnum)


class RelabelStrategy(StrEnum):
    """Where a relabelled goal comes from (Andrychowicz et al. 2017, section 4.5)."""

    FUTURE = "future"  # a state reached later in the same episode
    DISCOUNTED = "discounted"  # one of those, after a geometrically distributed number of steps
    NEXT = "next"  # the state that this step leads to
    FINAL = "final"  # the episode's last state
    EPISODE = "episode"  # any state of the same episode
    RANDOM = "random"  # any state in the buffer, reachable from here or not
    NEAR = "near"  # of several such states the nearest, which a wall may be in front of
    OWN = "own"  # no relabelling: the goal that the episode was given


def validate_relabelling(relabel: Mapping[str, float]) -> dict[RelabelStrategy, float]:
    """Checks a mixture of strategies and returns it with its keys as `RelabelStrategy`.

    Raises:
        ValueError: On an unknown strategy, a negative probability or a sum other than one.
    """
    return validate_mixture("relabel", relabel, RelabelStrategy)


def validate_mixture(
    setting: str, mixture: Mapping[str, float], names: type[_Name]
) -> dict[_Name, float]:
    """Checks probabilities of some names, those of an enumeration, and returns them by its members.

    Raises:
        ValueError: On an unknown name, a negative probability or a sum other than one.
    """
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


def row_of_episode(
    strategy: RelabelStrategy,
    row: Tensor,
    first: Tensor,
    last: Tensor,
    fraction: Tensor,
    discount: float,
) -> Tensor:
    """Rows (B,) of the same episode whose achieved goals are the goals of transitions.

    Args:
        strategy: One that looks for goals in the same episode.
        row: (B,) where transitions begin.
        first: (B,) where their episodes begin.
        last: (B,) where these end.
        fraction: (B,) uniform in [0, 1).
        discount: γ of "discounted".

    Raises:
        ValueError: If the strategy looks elsewhere.
    """
    match strategy:
        case RelabelStrategy.FUTURE:  # any state after this one
            return row + 1 + (fraction * (last - row)).long()
        case RelabelStrategy.DISCOUNTED:  # k steps on by p(k) ∝ γᵏ, as far as the episode goes
            within = 1 - discount ** (last - row).double()
            wait = torch.log1p(-fraction * within) / math.log(discount)
            return torch.minimum(row + 1 + wait.long(), last)
        case RelabelStrategy.NEXT:
            return row + 1
        case RelabelStrategy.FINAL:
            return last
        case RelabelStrategy.EPISODE:  # any state of the episode, this one's past included
            return first + (fraction * (last - first + 1)).long()
    raise ValueError(f'"{strategy}" takes no goal from what its episode achieved.')


def first_false(flags: Tensor) -> Tensor:
    """(B,) where each column of the flattened (C, B) flags has its first False, or else its end."""
    count, width = flags.shape
    leading = flags.long().cumprod(0).sum(0).clamp_max(count - 1)
    return leading * width + torch.arange(width, device=flags.device)
