"""`LoggedEpisode`: one episode of a log, in the environment's own units, and what may be wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rllib_odac.envs.actions import Actions
from rllib_odac.replay.episodes import Array, GoalEpisode


@dataclass
class LoggedEpisode:
    """T steps as they were logged.

    Attributes:
        observation: (T + 1, D) float32.
        achieved_goal: (T + 1, G) float32, φ(s).
        desired_goal: (T + 1, G) float32; where the log names no goals, what was achieved last.
        actions: (T, A) float32 as the environment takes them, or as replays hold them if
            `is_unit`.
        terminated: Whether it ended in a terminal state.
        where: File and number, for messages.
        is_unit: Whether actions are rows of a replay already.
    """

    observation: Array
    achieved_goal: Array
    desired_goal: Array
    actions: Array
    terminated: bool
    where: str
    is_unit: bool = False

    def __len__(self) -> int:
        """Number of steps T."""
        return len(self.actions)

    @property
    def widths(self) -> dict[str, int]:
        """Numbers in a row of each column."""
        columns = {"observation": self.observation, "desired_goal": self.desired_goal}
        return {name: values.shape[1] for name, values in columns.items()} | {
            "actions": self.actions.shape[1]
        }


def logged_episode(
    columns: Mapping[str, Any], where: str, goal: Sequence[int] | None = None
) -> LoggedEpisode:
    """Checks the columns of an episode.

    Args:
        columns: `observation` of T + 1 rows, `actions` of T; optional are `achieved_goal`,
            `desired_goal` (T + 1 rows or one), `terminated` and `is_unit`.
        where: File and number of the episode, for messages.
        goal: Coordinates of the observation that are the achieved goal, where the log names none;
            by default all of them.

    Raises:
        ValueError: With one sentence that names the file, the episode and the field.
    """
    observation = _rows(columns, "observation", where)
    actions = _rows(columns, "actions", where)
    steps = len(observation) - 1
    if steps < 1:
        raise ValueError(
            f"{where}: observation has {len(observation)} rows, but must have at least 2: a step "
            "leads from one state to the next."
        )
    if len(actions) != steps:
        raise ValueError(
            f"{where}: actions has {len(actions)} rows, but must have {steps}, one less than "
            f"observation's {steps + 1}."
        )
    if columns.get("achieved_goal") is not None:
        achieved = _rows(columns, "achieved_goal", where)
    else:
        width = observation.shape[1]
        chosen = list(range(width) if goal is None else goal)
        if not chosen or not all(0 <= index < width for index in chosen):
            raise ValueError(
                f"{where}: data_goal is {chosen}, but must be coordinates of observation, which "
                f"has {width}."
            )
        achieved = observation[:, chosen]
    if columns.get("desired_goal") is None:
        desired = np.repeat(achieved[-1:], steps + 1, axis=0)
    else:
        desired = _rows(columns, "desired_goal", where)
        if len(desired) == 1:
            desired = np.repeat(desired, steps + 1, axis=0)
    for name, values in (("achieved_goal", achieved), ("desired_goal", desired)):
        if len(values) != steps + 1:
            raise ValueError(
                f"{where}: {name} has {len(values)} rows, but must have {steps + 1} as observation."
            )
    if achieved.shape != desired.shape:
        raise ValueError(
            f"{where}: desired_goal has {desired.shape[1]} numbers a row, but must have "
            f"{achieved.shape[1]} as achieved_goal."
        )
    terminated = bool(np.any(columns.get("terminated", False)))
    is_unit = bool(columns.get("is_unit", False))
    return LoggedEpisode(observation, achieved, desired, actions, terminated, where, is_unit)


def to_replay(episode: LoggedEpisode, actions: Actions) -> GoalEpisode:
    """The episode as replays hold it, its actions as rows of A numbers.

    Args:
        episode: Of a log.
        actions: The environment's.

    Raises:
        ValueError: If an action is none of the environment's.
    """
    rows = episode.actions
    if not episode.is_unit:
        try:
            rows = actions.from_env(rows)
        except ValueError as error:
            raise ValueError(f"{episode.where}: actions {error}") from None
    return GoalEpisode(
        episode.observation,
        episode.achieved_goal,
        episode.desired_goal,
        rows,
        episode.terminated,
    )


def _rows(columns: Mapping[str, Any], name: str, where: str) -> Array:
    if columns.get(name) is None:
        raise ValueError(f"{where} has no {name}, but must; it has {sorted(columns)}.")
    try:
        values = np.asarray(columns[name], dtype=np.float32)
    except (ValueError, TypeError):
        raise ValueError(f"{where}: {name} must be numbers, each row as long.") from None
    if values.ndim == 0:
        raise ValueError(f"{where}: {name} is one number, but must have a row for each step.")
    values = values.reshape(len(values), math.prod(values.shape[1:]))
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
        raise ValueError(f"{where}: {name} holds NaN or infinity in row {row}.")
    return values
