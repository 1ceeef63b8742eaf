"""`Window`: the part of a log that a replay holds, where the log is larger than that.

A replay is filled, and while updates are made the log passes through it: new episodes take the
place of the oldest, so many that a transition is drawn `data_reuse` times, on average, before it
leaves. The log has no end: files come in an order that is shuffled anew for each pass. Learners
take different files or, where there are too few of them, different episodes.

A thread reads one piece ahead, which is enough: decoding takes a few per cent of an update's time,
and PyArrow, NumPy and PyTorch do it side by side. Ray Data would do it in other processes, for
which a cluster has to have CPUs to spare; its blocks cut episodes, which relabelling needs whole,
and of the formats here it reads Parquet alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from rllib_odac.data.logged import LoggedEpisode, to_replay
from rllib_odac.data.read import log_files, read_episodes, read_files
from rllib_odac.envs.actions import Actions
from rllib_odac.replay.episodes import GoalEpisode

BYTES_AHEAD, EPISODES_AHEAD = 4 << 20, 100  # read while others are learned from, at most
MOST_AT_ONCE = 0.25  # of a replay that is replaced between two calls of a learner


@dataclass(frozen=True)
class Log:
    """A log, and how it becomes episodes of a replay.

    Attributes:
        path: As `read_episodes` takes it.
        goal: The same.
        actions: Those of environment or log.
        capacity: States that a replay holds.
        num_learners: Among whom episodes are dealt out.
    """

    path: str
    goal: Sequence[int] | None
    actions: Actions
    capacity: int
    num_learners: int

    def once(self, learner: int) -> Iterator[GoalEpisode]:
        """A learner's episodes, in their order.

        Raises:
            ValueError: With one sentence on the first file, episode and field that is wrong.
        """
        episodes = read_episodes(self.path, self.goal)
        yield from map(
            self._to_replay, itertools.islice(episodes, learner, None, self.num_learners)
        )

    def endless(self, learner: int, seed: Sequence[int]) -> Iterator[GoalEpisode]:
        """A learner's episodes, pass after pass, files in shuffled orders.

        Args:
            learner: Number of the learner.
            seed: Of the orders, the same for all learners.

        Raises:
            ValueError: As `once`, also when the log has changed.
        """
        widths = next(read_episodes(self.path, self.goal)).widths
        files = log_files(self.path)
        for number in itertools.count():
            order = np.random.default_rng([*seed, number]).permutation(len(files)).tolist()
            is_dealt = len(files) >= self.num_learners
            mine = order[learner :: self.num_learners] if is_dealt else order
            episodes = read_files([files[index] for index in mine], self.goal, widths)
            if not is_dealt:
                episodes = itertools.islice(episodes, learner, None, self.num_learners)
            yield from map(self._to_replay, episodes)

    def _to_replay(self, episode: LoggedEpisode) -> GoalEpisode:
        if len(episode) >= self.capacity:
            raise ValueError(
                f"{episode.where}: observation has {len(episode) + 1} rows, but must have at most "
                f"replay_capacity, {self.capacity}."
            )
        return to_replay(episode, self.actions)


class Window:
    """Takes episodes from an endless log, as many as updates ask for.

    Args:
        episodes: Of the log, without end.
        steps_per_update: Transitions that take the place of others in each update.
        capacity: States that the replay holds.
    """

    def __init__(
        self, episodes: Iterator[GoalEpisode], steps_per_update: float, capacity: int
    ) -> None:
        self._episodes = _read_ahead(episodes)
        self._steps_per_update = steps_per_update
        self._most = MOST_AT_ONCE * capacity
        self._capacity = capacity
        self._owed = 0.0  # transitions

    def fill(self) -> Iterator[GoalEpisode]:
        """Episodes until a replay is full.

        Raises:
            ValueError: With one sentence on the file, episode and field that is wrong.
        """
        states = 0
        while states < self._capacity:
            yield (episode := next(self._episodes))
            states += len(episode) + 1

    def advance(self, num_updates: int) -> Iterator[GoalEpisode]:
        """Episodes that come in before so many updates.

        Raises:
            ValueError: With one sentence on the file, episode and field that is wrong.
        """
        self._owed = min(self._owed + num_updates * self._steps_per_update, self._most)
        while self._owed > 0:
            yield (episode := next(self._episodes))
            self._owed -= len(episode)


def _read_ahead(episodes: Iterator[GoalEpisode]) -> Iterator[GoalEpisode]:
    """The same, read by a thread in pieces of some megabytes, of which one waits."""

    def read() -> list[GoalEpisode]:
        piece: list[GoalEpisode] = []
        size = 0
        while size < BYTES_AHEAD and len(piece) < EPISODES_AHEAD:
            piece.append(next(episodes))
            size += piece[-1].observation.nbytes + piece[-1].achieved_goal.nbytes
        return piece

    with ThreadPoolExecutor(1, "odac-log") as thread:
        ahead = thread.submit(read)
        while True:
            piece = ahead.result()
            ahead = thread.submit(read)
            yield from piece
