"""`Supervision`: no wait on other processes is without an end and without a word.

A process may be frozen, its machine swapping, its storage hanging: nothing tells this apart from
work that takes long. After a deadline it is treated as one that has died, which every caller
recovers from already: its actor is killed, and what was waited for raises Ray's error.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray

WARN_AFTER = 0.1  # of the time that a wait may take

logger = logging.getLogger(__name__)


class Supervision:
    """Deadlines for waits on some actors.

    Args:
        who: What messages call them, in the plural.
        actors: Gives them; there may be none, and then nothing is supervised.
        timeout_s: Time without an answer after which they are killed.
        setting: The setting that it comes from.
    """

    def __init__(
        self, who: str, actors: Callable[[], Sequence[Any]], timeout_s: float, setting: str
    ) -> None:
        self._who = who
        self._actors = actors
        self._timeout_s = timeout_s
        self._setting = setting
        self._heard = time.monotonic()
        self._has_warned = False

    def heard(self) -> None:
        """Notes an answer, or that nothing is waited for."""
        self._heard = time.monotonic()
        self._has_warned = False

    def check(self, purpose: str) -> None:
        """For callers who wait in a loop: warns, or kills, if nothing was heard for too long.

        Look for answers first: the caller may have been away itself.

        Args:
            purpose: What they are waited for to do.
        """
        waited = time.monotonic() - self._heard
        if waited > WARN_AFTER * self._timeout_s and not self._has_warned:
            self._warn(purpose, waited)
            self._has_warned = True
        if waited > self._timeout_s:
            self._end(purpose)
            self.heard()

    @contextlib.contextmanager
    def waiting(self, purpose: str) -> Iterator[None]:
        """For one call that returns when it is done: a thread looks after it."""
        if not self._actors():
            yield
            return
        is_done = threading.Event()
        watch = threading.Thread(target=self._watch, args=(purpose, is_done), daemon=True)
        watch.start()
        try:
            yield
        finally:
            is_done.set()
            watch.join()
            self.heard()

    def _watch(self, purpose: str, is_done: threading.Event) -> None:
        first = WARN_AFTER * self._timeout_s
        if is_done.wait(first):
            return
        self._warn(purpose, first)
        if not is_done.wait(self._timeout_s - first):
            self._end(purpose)

    def _warn(self, purpose: str, waited: float) -> None:
        logger.warning(
            "%s have taken %.0f s to %s; after %g s (%s) they are given up.",
            *(self._who, waited, purpose, self._timeout_s, self._setting),
        )

    def _end(self, purpose: str) -> None:
        logger.error(
            "%s did not %s within %g s (%s); they are killed.",
            *(self._who, purpose, self._timeout_s, self._setting),
        )
        for actor in self._actors():
            ray.kill(actor, no_restart=True)
