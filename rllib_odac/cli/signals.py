"""Signals that end a command: the first saves what there is, the second ends it at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

import psutil

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopping:
    """What arrives, and what it does.

    Args:
        stop: Called with the first signal: it lets what runs end by itself, and says whether it
            will. If it will not, the signal ends this process with `SystemExit`.
    """

    def __init__(self, stop: Callable[[], bool]) -> None:
        self.received: signal.Signals | None = None
        self._stop = stop

    @property
    def exit_code(self) -> int:
        """128 and the signal's number, as shells report it."""
        return 128 + (self.received or 0)

    def install(self) -> None:
        """Takes the signals; again after Ray has started, which brings a handler of its own."""
        for number in SIGNALS:
            signal.signal(number, self._handle)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.received is not None:
            # Ray's own processes would notice only after a minute that they are alone.
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    process.kill()
            os._exit(128 + number)
        self.received = signal.Signals(number)
        if not self._stop():
            sys.exit(self.exit_code)
        # Not by print: the signal may have come while something else was printing.
        os.write(2, b"stopping after a checkpoint; once more stops at once\n")


@contextlib.contextmanager
def stopping_on_signals(stop: Callable[[], bool]) -> Iterator[Stopping]:
    """Lets SIGINT and SIGTERM ask for a clean end within."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    stopping = Stopping(stop)
    stopping.install()
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
