"""Filling the replays of learners from a log, past the driver."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ray.rllib.core.learner.learner_group import LearnerGroup

from rllib_odac.checkpoints.shards import number_of, on_each
from rllib_odac.data.logged import to_replay
from rllib_odac.data.read import read_episodes
from rllib_odac.replay.episodes import Array

if TYPE_CHECKING:
    from rllib_odac.learner import ODACTorchLearner


def check_log(path: str, goal: Sequence[int] | None, widths: Mapping[str, int], env: str) -> None:
    """Checks that the first episode of a log is one of the environment's.

    Raises:
        ValueError: If it is not, or cannot be read; the sentence names file, episode and field.
    """
    episode = next(read_episodes(path, goal))
    for name, width in widths.items():
        if (found := episode.widths[name]) != width:
            cure = ", or data_goal must name the coordinates of observation that are the goal"
            raise ValueError(
                f"{episode.where}: {name} has {found} numbers a row, but must have {width} as "
                f"'{env}'{cure if name == 'desired_goal' else ''}."
            )


def load_log(
    group: LearnerGroup, path: str, goal: Sequence[int] | None, low: Array, high: Array
) -> int:
    """Lets each learner read a log and keep its share of the episodes.

    Args:
        group: The learners.
        path: Of the log, as `read_episodes` takes it, where all of them reach it.
        goal: The same.
        low: (A,) lower bounds of the environment's actions.
        high: (A,) upper bounds.

    Returns:
        Transitions in the smallest replay.

    Raises:
        ValueError: With one sentence on the first file, episode and field that is wrong; replays
            then are as they were.
    """
    load = functools.partial(
        _load, path=path, goal=goal, low=low, high=high, num_learners=number_of(group)
    )
    return min(on_each(group, load))


def _load(
    learner: ODACTorchLearner,
    path: str,
    goal: Sequence[int] | None,
    low: Array,
    high: Array,
    num_learners: int,
) -> int:
    # All are read before any is stored, so that nothing is half-loaded.
    mine: Any = itertools.islice(
        read_episodes(path, goal), learner._learner_index, None, num_learners
    )
    episodes = [to_replay(episode, low, high) for episode in mine]
    learner.add_episodes(episodes)
    return len(learner.replay)
