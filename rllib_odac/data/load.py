"""Filling the replays of learners from a log, past the driver."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from ray.rllib.core.learner.learner_group import LearnerGroup

from rllib_odac.checkpoints.shards import number_of, on_each
from rllib_odac.data.logged import to_replay
from rllib_odac.data.read import read_episodes
from rllib_odac.replay.episodes import Array
from rllib_odac.storage import Storage

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


def logged_spaces(path: str, goal: Sequence[int] | None) -> dict[str, gym.Space[Any]]:
    """`observation_space` and `action_space` of a log, where no environment names them.

    Bounds of actions are those that `odac record` noted, or −1 and 1.

    Raises:
        ValueError: If the log cannot be read.
    """
    widths = next(read_episodes(path, goal)).widths
    goals = gym.spaces.Box(-np.inf, np.inf, (widths["desired_goal"],), np.float32)
    observation = gym.spaces.Box(-np.inf, np.inf, (widths["observation"],), np.float32)
    noted = Storage.of(path) / "dataset.json"
    facts = {} if noted.size is None else noted.read_json() or {}
    ones = np.ones(widths["actions"])
    low, high = np.array(facts.get("action_low", -ones)), np.array(facts.get("action_high", ones))
    return {
        "observation_space": gym.spaces.Dict(
            {"observation": observation, "achieved_goal": goals, "desired_goal": goals}
        ),
        "action_space": gym.spaces.Box(low.astype(np.float32), high.astype(np.float32)),
    }


def load_log(
    group: LearnerGroup,
    path: str,
    goal: Sequence[int] | None,
    low: Array,
    high: Array,
    is_known: bool = False,
) -> int:
    """Lets each learner read a log and keep its share of the episodes.

    Args:
        group: The learners.
        path: Of the log, as `read_episodes` takes it, where all of them reach it.
        goal: The same.
        low: (A,) lower bounds of the environment's actions.
        high: (A,) upper bounds.
        is_known: Whether input statistics have the log already, as after a restore.

    Returns:
        Transitions in the smallest replay.

    Raises:
        ValueError: With one sentence on the first file, episode and field that is wrong; replays
            then are as they were.
    """
    load = functools.partial(
        _load,
        path=path,
        goal=goal,
        low=low,
        high=high,
        num_learners=number_of(group),
        is_known=is_known,
    )
    return min(on_each(group, load))


def _load(
    learner: ODACTorchLearner,
    path: str,
    goal: Sequence[int] | None,
    low: Array,
    high: Array,
    num_learners: int,
    is_known: bool,
) -> int:
    # All are read before any is stored, so that nothing is half-loaded.
    mine: Any = itertools.islice(
        read_episodes(path, goal), learner._learner_index, None, num_learners
    )
    episodes = [to_replay(episode, low, high) for episode in mine]
    learner.add_episodes(episodes, is_known)
    return len(learner.replay)
