"""Goals for the episodes that are collected for training, drawn from what was achieved so far."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

import torch
from torch import Tensor

from rllib_odac.replay.buffer import GoalReplay
from rllib_odac.replay.relabelling import validate_mixture

SAMPLE_SIZE = 512  # achieved goals that are drawn to find rare ones among them
NEIGHBOUR = 10  # the neighbour whose distance measures how rare a goal is
TRIES = 32  # pairs of states that are drawn for each displacement, since most things lie still


class ExplorationGoals(StrEnum):
    """Where the goal of an episode that is collected for training comes from."""

    ENVIRONMENT = "environment"  # its own distribution, as in evaluation
    ACHIEVED = "achieved"  # any state reached so far: nobody has to know what can be reached
    RARE = "rare"  # the same, the more often the fewer others are near it
    DISPLACED = "displaced"  # as near to its own as it can get by as much as others were displaced


def validate_exploration_goals(goals: str | Mapping[str, float]) -> dict[ExplorationGoals, float]:
    """Checks the name of a source of goals, or a mixture of them, and returns it as a mixture.

    Raises:
        ValueError: On an unknown source, a negative probability or a sum other than one.
    """
    mixture = {goals: 1.0} if isinstance(goals, str) else goals
    return validate_mixture("exploration_goals", mixture, ExplorationGoals)


def draw_exploration_goals(
    replay: GoalReplay,
    sources: Iterable[ExplorationGoals],
    count: int,
    least_distance: float | Tensor,
    measured: slice = slice(None),
) -> dict[ExplorationGoals, Tensor]:
    """Goals (N, G) of each source but the environment, as far as the replay holds any.

    Those of "displaced" are displacements, to be added to the achieved goal that an episode begins
    with, and may be fewer.

    Args:
        replay: Where they were achieved.
        sources: Which are asked for.
        count: N.
        least_distance: Of displacements, in the environment's units.
        measured: Coordinates of a goal that rarity and distance are judged by. Where a goal names a
            hand and an object, those of the object, since a hand is soon everywhere.
    """
    draw = {
        ExplorationGoals.ACHIEVED: lambda: replay.sample_achieved(count),
        ExplorationGoals.RARE: lambda: sample_rare(replay, count, measured),
        ExplorationGoals.DISPLACED: lambda: sample_displacements(
            replay, count, least_distance, measured
        ),
    }
    if len(replay) == 0:
        return {}
    drawn = {source: draw[source]() for source in sources if source in draw}
    return {source: goals for source, goals in drawn.items() if len(goals) > 0}


def sample_displacements(
    replay: GoalReplay,
    count: int,
    least_distance: float | Tensor,
    measured: slice = slice(None),
) -> Tensor:
    """At most N displacements (M, G) of achieved goals between a state and a later one.

    Hindsight teaches to bring about what was brought about before, by as much, and an object that
    was pushed a little can be pushed a little again, from wherever it lies. A policy that is asked
    for this meets the object in most episodes long before it can do what the task asks for.

    Args:
        As of `draw_exploration_goals`.
    """
    ways = replay.sample_displacements(TRIES * count)
    is_far = ways[:, measured].norm(dim=-1) > least_distance
    return ways[is_far][:count]


def sample_rare(replay: GoalReplay, count: int, measured: slice = slice(None)) -> Tensor:
    """Achieved goals (N, G), skewed towards those that few others are near.

    The farther away a goal's tenth nearest neighbour is in a sample, the likelier it is drawn: by
    its density to the power −1/G, a tame form of Skew-Fit (Pong et al. 2020) without a model.

    Args:
        replay: Where they were achieved.
        count: N.
        measured: As of `draw_exploration_goals`.
    """
    goals = replay.sample_achieved(max(count, SAMPLE_SIZE))
    positions = goals[:, measured]
    distances = torch.cdist(positions, positions)  # the nearest of all is a goal itself
    rarity = distances.kthvalue(NEIGHBOUR + 1).values
    if not rarity.sum() > 0:  # all in one place
        rarity = torch.ones_like(rarity)
    picked = torch.multinomial(rarity, count, replacement=True, generator=replay.generator)
    return goals[picked]
