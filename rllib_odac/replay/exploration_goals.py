"""Goals for the episodes that are collected for training: achieved ones, or rare ones of those."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import torch
from torch import Tensor

from rllib_odac.replay.buffer import GoalReplay
from rllib_odac.replay.relabelling import validate_mixture

SAMPLE_SIZE = 512  # achieved goals that are drawn to find rare ones among them
NEIGHBOUR = 10  # the neighbour whose distance measures how rare a goal is


class ExplorationGoals(StrEnum):
    """Where the goal of an episode that is collected for training comes from."""

    ENVIRONMENT = "environment"  # its own distribution, as in evaluation
    ACHIEVED = "achieved"  # any state reached so far: nobody has to know what can be reached
    RARE = "rare"  # the same, the more often the fewer others are near it


def validate_exploration_goals(goals: str | Mapping[str, float]) -> dict[ExplorationGoals, float]:
    """Checks the name of a source of goals, or a mixture of them, and returns it as a mixture.

    Raises:
        ValueError: On an unknown source, a negative probability or a sum other than one.
    """
    mixture = {goals: 1.0} if isinstance(goals, str) else goals
    return validate_mixture("exploration_goals", mixture, ExplorationGoals)


def draw_exploration_goals(
    replay: GoalReplay,
    mixture: Mapping[ExplorationGoals, float],
    count: int,
    measured: slice = slice(None),
) -> Tensor | None:
    """Achieved goals (N, G) in the shares that a mixture gives to achieved and to rare ones.

    None if the mixture has neither, or as long as the replay is empty.

    Args:
        replay: Where they were achieved.
        mixture: Probabilities of sources.
        count: N.
        measured: See `sample_rare`.
    """
    achieved = mixture.get(ExplorationGoals.ACHIEVED, 0.0)
    rare = mixture.get(ExplorationGoals.RARE, 0.0)
    if achieved + rare == 0 or len(replay) == 0:
        return None
    num_rare = round(count * rare / (achieved + rare))
    goals = [replay.sample_achieved(count - num_rare), sample_rare(replay, num_rare, measured)]
    return torch.cat(goals)


def sample_rare(replay: GoalReplay, count: int, measured: slice = slice(None)) -> Tensor:
    """Achieved goals (N, G), skewed towards those that few others are near.

    The farther away a goal's tenth nearest neighbour is in a sample, the likelier it is drawn: by
    its density to the power −1/G, a tame form of Skew-Fit (Pong et al. 2020) without a model.

    Args:
        replay: Where they were achieved.
        count: N.
        measured: Coordinates of a goal that rarity is judged by. Where a goal names a hand and an
            object, those of the object, since a hand is soon everywhere.
    """
    if count == 0:
        return replay.sample_achieved(0)
    goals = replay.sample_achieved(max(count, SAMPLE_SIZE))
    positions = goals[:, measured]
    distances = torch.cdist(positions, positions)  # the nearest of all is a goal itself
    rarity = distances.kthvalue(NEIGHBOUR + 1).values
    if not rarity.sum() > 0:  # all in one place
        rarity = torch.ones_like(rarity)
    picked = torch.multinomial(rarity, count, replacement=True, generator=replay.generator)
    return goals[picked]
