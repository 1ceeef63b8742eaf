"""Filling the replays of learners from a log, past the driver."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import torch
from ray.rllib.core.learner.learner_group import LearnerGroup
from torch import Tensor

from rllib_odac.checkpoints.shards import on_each
from rllib_odac.data.read import read_episodes
from rllib_odac.data.window import Log, Window
from rllib_odac.envs.actions import Actions
from rllib_odac.replay.episodes import GoalEpisode
from rllib_odac.storage import Storage

if TYPE_CHECKING:
    from rllib_odac.config import ODACConfig
    from rllib_odac.learner import ODACTorchLearner

logger = logging.getLogger(__name__)


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


def check_rollouts(config: ODACConfig) -> None:
    """Checks that goals are all that is observed, where p_ψ is to make up steps.

    Raises:
        ValueError: If observations say more than the achieved goal.
    """
    if config.rollout_weight == 0:
        return
    where = str(config.env if config.data is None else config.data)
    if config.data is None:
        env: Any = config.make_env()
        state, _ = env.reset(seed=0)
        env.close()
    else:
        state = vars(next(read_episodes(config.data, config.data_goal)))
    if not np.array_equal(state["observation"], state["achieved_goal"]):
        raise ValueError(
            f"rollout_weight is {config.rollout_weight}, but must be 0 where observations are more "
            f"than the achieved goal, which is all that p_ψ predicts, as in '{where}'."
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
    group: LearnerGroup, log: Log, seed: Sequence[int] | None = None, is_known: bool = False
) -> int:
    """Lets each learner read a log and keep its share of the episodes.

    Of what is more than replays hold they keep the last part or, with a seed, a `Window`.

    Args:
        group: The learners.
        log: Where all of them reach it.
        seed: Of the order in which the log passes through the window.
        is_known: Whether input statistics have the log already, as after a restore.

    Returns:
        Transitions in the smallest replay.

    Raises:
        ValueError: With one sentence on the first file, episode and field that is wrong; replays
            then are empty.
    """
    load = functools.partial(_load, log=log, is_window=seed is not None)
    loaded = [each for each in on_each(group, load) if each is not None]
    if seed is not None and len(loaded) < log.num_learners:
        logger.warning(
            "'%s' is more than replay_capacity (%d states in each learner): each holds a part of "
            "it, which moves through it in a shuffled order.",
            log.path,
            log.capacity,
        )
        loaded = on_each(group, functools.partial(_open_window, log=log, seed=seed))
    if not is_known:
        moments = torch.stack([moments for _, moments in loaded]).sum(0)
        on_each(group, functools.partial(_merge, moments=moments))
    return min(transitions for transitions, _ in loaded)


def _load(learner: ODACTorchLearner, log: Log, is_window: bool) -> tuple[int, Tensor] | None:
    """Stores a learner's share of a log; nothing if it is more than fits and is to be a window."""

    def fitting() -> Iterator[GoalEpisode]:
        states = 0
        for episode in log.once(learner._learner_index):
            states += len(episode) + 1
            if is_window and states > log.capacity:
                raise _TooMuch
            yield episode

    try:
        return _store(learner, fitting())
    except _TooMuch:
        return None


class _TooMuch(Exception):
    """A log does not fit a replay."""


def _open_window(learner: ODACTorchLearner, log: Log, seed: Sequence[int]) -> tuple[int, Tensor]:
    config = learner.config
    window = Window(
        log.endless(learner._learner_index, seed),
        config.train_batch_size_per_learner / config.data_reuse,
        log.capacity,
    )

    def refresh(num_updates: int) -> None:
        learner.add_episodes(window.advance(num_updates))
        learner.replay.mark_logged()

    learner.refresh_replay = refresh
    return _store(learner, window.fill())


def _store(learner: ODACTorchLearner, episodes: Iterable[GoalEpisode]) -> tuple[int, Tensor]:
    """Transitions and moments of what a replay now holds, all of it or nothing."""
    try:
        moments = learner.store(episodes)
    except BaseException:
        learner.replay.clear()
        raise
    learner.replay.mark_logged()
    return len(learner.replay), moments


def _merge(learner: ODACTorchLearner, moments: Tensor) -> None:
    learner.networks.observation_normalizer.merge(moments)
