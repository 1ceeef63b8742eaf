"""A lock for directories on object stores, which have none of their own."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator

from rllib_odac.storage import Storage

EXPIRES_S = 30.0  # a lease that was not renewed for so long is nobody's
RENEWED_EVERY_S = 8.0
SETTLES_S = 2.0  # two that begin at once have both written by then


class Lease:
    """The right to write to a directory, which its holder renews again and again.

    The holder's name is in an object beside the data. Without a conditional write, which PyArrow
    does not offer, two that begin at the same time both write it, wait, and read: the later write
    wins, and the other one is refused. That holds where a write is seen within `SETTLES_S`.

    Args:
        file: The object.
        what: What it protects, for messages.
    """

    def __init__(self, file: Storage, what: str) -> None:
        self._file = file
        self._what = what
        self._name = f"{socket.gethostname()} {os.getpid()} {uuid.uuid4().hex}"
        self._renewed = time.monotonic()
        self._ends = threading.Event()
        self._renewals = 0

    def check(self) -> None:
        """Raises an error if another process has the lease, or storage could not be reached.

        Raises:
            RuntimeError: With one sentence.
        """
        if time.monotonic() - self._renewed > EXPIRES_S:
            raise RuntimeError(
                f"{self._what} could not be held for {EXPIRES_S:g} s: another process has taken it "
                "over, or its storage cannot be reached."
            )

    @contextlib.contextmanager
    def held(self) -> Iterator[Lease]:
        """Holds the lease meanwhile.

        Raises:
            ValueError: If another process holds it.
        """
        self._wait_until_free()
        self._write()
        time.sleep(SETTLES_S)
        if self._holder() != self._name:
            raise ValueError(self._refusal)
        thread = threading.Thread(target=self._renew, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._ends.set()
            thread.join()
            with contextlib.suppress(OSError):
                if self._holder() == self._name:
                    self._file.remove()

    @property
    def _refusal(self) -> str:
        return f"{self._what} is in use by another process."

    def _wait_until_free(self) -> None:
        """A lease that nobody renews is waited for: its holder may have been killed."""
        seen = self._file.read_text()
        deadline = time.monotonic() + EXPIRES_S
        while seen is not None and time.monotonic() < deadline:
            time.sleep(1)
            if (now := self._file.read_text()) not in (seen, None):
                raise ValueError(self._refusal)
            seen = now

    def _renew(self) -> None:
        while not self._ends.wait(RENEWED_EVERY_S):
            with contextlib.suppress(OSError):  # the next attempt may succeed
                if self._holder() != self._name:
                    self._renewed = -float("inf")
                    return
                self._write()
                self._renewed = time.monotonic()

    def _write(self) -> None:
        self._renewals += 1
        self._file.write_bytes(f"{self._name}\n{self._renewals}\n".encode())

    def _holder(self) -> str | None:
        text = self._file.read_text()
        return None if text is None else text.split("\n", 1)[0]
