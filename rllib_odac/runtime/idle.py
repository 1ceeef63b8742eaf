"""`Idle`: which env runner has the least to do, without looking at all of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable


class Idle:
    """Env runners by the number of requests that each has: an ordered set for each number."""

    def __init__(self) -> None:
        self._requests: dict[int, int] = {}  # of each env runner that is alive
        self._with: defaultdict[int, dict[int, None]] = defaultdict(dict)

    def first(self, requests_each: int) -> int | None:
        """One with the fewest, if fewer than so many."""
        for number in range(requests_each):
            if self._with[number]:
                return next(iter(self._with[number]))
        return None

    def asked(self, runner: int) -> None:
        """Enters a further request to one."""
        self._move(runner, self._requests[runner] + 1)

    def answered(self, runner: int) -> None:
        """Enters that one has a request less, if it is alive."""
        if runner in self._requests:
            # One that was counted dead, and was not, may answer what it had been asked before.
            self._move(runner, max(0, self._requests[runner] - 1))

    def are_alive(self, runners: Iterable[int]) -> None:
        """Enters those that are new, or alive again, with no requests."""
        for runner in runners:
            if runner not in self._requests:
                self._requests[runner] = 0
                self._with[0][runner] = None

    def died(self, runner: int) -> None:
        """Forgets one."""
        if (number := self._requests.pop(runner, None)) is not None:
            del self._with[number][runner]

    def _move(self, runner: int, number: int) -> None:
        del self._with[self._requests[runner]][runner]
        self._requests[runner] = number
        self._with[number][runner] = None
