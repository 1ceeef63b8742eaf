"""Goal-conditioned episodes: finished ones, which travel, and open ones, which are being made."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

COLUMNS = ("observation", "achieved_goal", "desired_goal")
ACTIONS = "actions"
FIRST_ROOM = 256  # steps that open episodes have room for at first

LONG = 10_000  # steps of an episode after which it is worth a word

Array = np.ndarray[Any, np.dtype[Any]]

logger = logging.getLogger(__name__)


def check_it_ends(steps: int, longest: int) -> None:
    """Warns of an episode that gets long, and refuses one that has no end.

    Args:
        steps: That it has made, every number of them once.
        longest: Steps that a replay has room for.

    Raises:
        ValueError: If it has made more.
    """
    if steps == LONG:
        logger.warning(
            "An episode has gone on for %d steps; max_episode_steps would cut it.",
            steps,
        )
    if steps > longest:
        raise ValueError(
            f"An episode has gone on for {steps} steps, more than replay_capacity ({longest}) has "
            "room for: give max_episode_steps, the number of steps after which an episode is cut."
        )


@dataclass(slots=True)
class GoalEpisode:
    """What one environment gave from a reset to its end, or to where it was cut.

    Attributes:
        observation: (T + 1, D) float32.
        achieved_goal: (T + 1, G) float32, φ(s_t).
        desired_goal: (T + 1, G) float32, the goal at each step (constant in most tasks).
        actions: (T, A) float32 in [−1, 1].
        terminated: Whether the environment ended in a terminal state; a time limit or a cut is
            no termination.
    """

    observation: Array
    achieved_goal: Array
    desired_goal: Array
    actions: Array
    terminated: bool = False

    def __len__(self) -> int:
        """Number of transitions T."""
        return len(self.actions)


class OpenEpisodes:
    """The episodes that are still going on, one in each environment or none.

    Rows of all environments are written together, so that a step costs the same few operations
    however many there are; an episode is copied out when it has ended.

    Args:
        observation: the first states, columns (N, D).
        action_dim: A.
        longest: Steps that an episode may have at most.
    """

    def __init__(self, observation: dict[str, Array], action_dim: int, longest: int) -> None:
        shapes = {name: observation[name].shape for name in COLUMNS}
        num_envs = len(observation[COLUMNS[0]])
        shapes[ACTIONS] = (num_envs, action_dim)
        self._rows = {n: np.empty((FIRST_ROOM, *s), dtype=np.float32) for n, s in shapes.items()}
        self._longest = longest
        self._now = 0  # the row of the present states
        self._first = np.zeros(num_envs, dtype=np.int64)  # the row of each episode's first state
        self.is_open = np.ones(num_envs, dtype=bool)
        self.show(observation)

    @property
    def lengths(self) -> Array:
        """(N,) steps made in each; without meaning where none is running."""
        return self._now - self._first

    @property
    def num_begun(self) -> int:
        """Episodes that are open and have made a step."""
        return int(np.count_nonzero(self.is_open & (self.lengths > 0)))

    def show(self, observation: dict[str, Array]) -> None:
        """Sets the present states."""
        for name in COLUMNS:
            self._rows[name][self._now] = observation[name]

    def append(self, actions: Array, observation: dict[str, Array]) -> None:
        """Adds one step of all: the actions (N, A) taken and the states that they led to."""
        if self._now + 1 == len(self._rows[ACTIONS]):
            self._make_room()
        self._rows[ACTIONS][self._now] = actions
        self._now += 1
        self.show(observation)

    def begin(self, which: Array) -> None:
        """Lets an episode begin with the present state where `which`, (N,) bool, says so."""
        self._first[which] = self._now
        self.is_open |= which

    def close(self, index: int, terminated: bool) -> GoalEpisode:
        """The episode of environment `index`, finished."""
        first, last = int(self._first[index]), self._now
        self.is_open[index] = False
        columns = {name: self._rows[name][first : last + 1, index].copy() for name in COLUMNS}
        actions = self._rows[ACTIONS][first:last, index].copy()
        return GoalEpisode(**columns, actions=actions, terminated=terminated)

    def _make_room(self) -> None:
        """Forgets what belongs to no open episode; doubles the room if that is less than half.

        Raises:
            ValueError: If an episode has no end.
        """
        oldest = int(self._first.min(where=self.is_open, initial=self._now))
        kept = self._now + 1 - oldest
        check_it_ends(kept - 1, self._longest)
        for name, rows in self._rows.items():
            room = len(rows) if 2 * kept <= len(rows) else 2 * len(rows)
            self._rows[name] = np.empty((room, *rows.shape[1:]), dtype=np.float32)
            self._rows[name][:kept] = rows[oldest : oldest + kept]
        self._first -= oldest
        self._now -= oldest


def cut_episodes(
    columns: Mapping[str, Array], episodes: Iterable[tuple[int, bool]]
) -> Iterator[GoalEpisode]:
    """Episodes from the rows of all their states, by their steps and whether they terminated."""
    start = 0
    for steps, terminated in episodes:
        rows = {name: values[start : start + steps + 1] for name, values in columns.items()}
        rows["actions"] = rows["actions"][:-1]
        yield GoalEpisode(**rows, terminated=bool(terminated))
        start += steps + 1
