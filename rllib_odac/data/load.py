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
from rllib_odac.envs.actions import Actions
from rllib_odac.storage import Storage

if TYPE_CHECKING:
    from rllib_odac.learner import ODACTorchLearner


def check_log(
    path: str, goal: Sequence[int] | None, widths: Mapping[str, int], actions: Actions, env: str
) -> None:
    """Checks that the first episode of a log is one of the environment's.

    Raises:
        ValueError: If it is not, or cannot be read; the sentence names file, episode and field.
    """
    episode = next(read_episodes(path, goal))
    action_width = actions.width if episode.is_unit else actions.env_width
    for name, width in {**widths, "actions": action_width}.items():
        if (found := episode.widths[name]) != width:
            cure = ", or data_goal must name the coordinates of observation that are the goal"
            raise ValueError(
                f"{episode.where}: {name} has {found} numbers a row, but must have {width} as "
                f"'{env}'{cure if name == 'desired_goal' else ''}."
            )


def logged_spaces(path: str, goal: Sequence[int] | None) -> dict[str, gym.Space[Any]]:
    """`observation_space` and `action_space` of a log, where no environment names them.

    Actions are those that `odac record` noted, or a box between −1 and 1.

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
    kind = facts.get("action_space", "Box")
    actions: gym.Space[Any]
    if kind == "Box":
        actions = gym.spaces.Box(low.astype(np.float32), high.astype(np.float32))
    elif kind == "Discrete":
        actions = gym.spaces.Discrete(int(high[0] - low[0]) + 1, start=int(low[0]))
    else:
        actions = gym.spaces.MultiDiscrete(high - low + 1, start=low)
    return {
        "observation_space": gym.spaces.Dict(
            {"observation": observation, "achieved_goal": goals, "desired_goal": goals}
        ),
        "action_space": actions,
    }


def load_log(
    group: LearnerGroup,
    path: str,
    goal: Sequence[int] | None,
    actions: Actions,
    is_known: bool = False,
) -> int:
    """Lets each learner read a log and keep its share of the episodes.

    Args:
        group: The learners.
        path: Of the log, as `read_episodes` takes it, where all of them reach it.
        goal: The same.
        actions: Those of environment or log.
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
        actions=actions,
        num_learners=number_of(group),
        is_known=is_known,
    )
    return min(on_each(group, load))


def _load(
    learner: ODACTorchLearner,
    path: str,
    goal: Sequence[int] | None,
    actions: Actions,
    num_learners: int,
    is_known: bool,
) -> int:
    # All are read before any is stored, so that nothing is half-loaded.
    mine: Any = itertools.islice(
        read_episodes(path, goal), learner._learner_index, None, num_learners
    )
    episodes = [to_replay(episode, actions) for episode in mine]
    learner.add_episodes(episodes, is_known)
    learner.replay.mark_logged()
    return len(learner.replay)
