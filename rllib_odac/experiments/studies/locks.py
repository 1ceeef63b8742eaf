"""A lock on a file that goes with the process that holds it, however that process ends."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def locked(path: Path, what: str, patience: float = 0.0) -> Iterator[None]:
    """Holds the lock of a file, which is made where there is none and never removed.

    Args:
        path: The file; its directory must exist.
        what: What the lock protects, for the message.
        patience: Seconds to wait for another process to let go.

    Raises:
        ValueError: If another process still holds it then.
    """
    deadline = time.monotonic() + patience
    with open(path, "a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise ValueError(f"{what} is in use by another process.") from None
            time.sleep(0.2)
        yield
