"""How fast learners update, and what follows from it for calls and for sampling ahead.

Sizes that suit a CPU, which makes a hundred updates a second, would have the driver call a learner
on a GPU hundreds of times a second, and its env runners wait for it again and again.
"""

from __future__ import annotations

import math

from rllib_odac.learner import UPDATES_PER_DRAW

UPDATES_PER_CALL = UPDATES_PER_DRAW  # at least, while samples are under way
CALL_S = 0.1  # that a call of more of them takes about, which is how old weights may become by it
PUBLISH_EVERY_S = 0.1  # at most, while more updates are owed
MAX_LAG, MAX_LAG_S = 200, 0.5  # updates and seconds, the more of which "auto" is
NEWEST = 0.2  # weight of the newest call in the average


class Pace:
    """The time of an update, as a moving average over calls, and sizes by it.

    Args:
        max_lag: Updates that sampling may be ahead of learning, or "auto".
    """

    def __init__(self, max_lag: int | str) -> None:
        self._max_lag = max_lag
        self._update_s: float | None = None

    def note(self, num_updates: int, seconds: float) -> None:
        """Takes note of a call of so many updates."""
        if num_updates < UPDATES_PER_CALL:
            return  # what else is in a call would count for too much
        update_s = seconds / num_updates
        before = update_s if self._update_s is None else self._update_s
        self._update_s = before + NEWEST * (update_s - before)

    @property
    def updates_per_call(self) -> int:
        """Updates of the next call at most: whole draws from the replay, and one at least."""
        draws = self._updates_in(CALL_S) / UPDATES_PER_DRAW
        return max(UPDATES_PER_CALL, UPDATES_PER_DRAW * int(draws))

    @property
    def max_lag(self) -> float:
        """Updates that sampling may be ahead of learning."""
        if isinstance(self._max_lag, str):
            return max(MAX_LAG, self._updates_in(MAX_LAG_S))
        return self._max_lag

    def _updates_in(self, seconds: float) -> float:
        return seconds / self._update_s if self._update_s else 0.0


class Publications:
    """When the first learner hands out new weights, which costs it time."""

    def __init__(self) -> None:
        self._last = -math.inf

    def is_due(self, num_updates: int, more_owed: bool, now: float) -> bool:
        """Whether a call of so many updates ends with new weights; takes it that it then does.

        Where no more are owed it may be long until the next call, and env runners wait for these.
        """
        if num_updates == 0 or (more_owed and now < self._last + PUBLISH_EVERY_S):
            return False
        self._last = now
        return True
