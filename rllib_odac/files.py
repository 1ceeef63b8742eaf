"""Files that are whole or as they were, and locks between processes."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock

PARTIAL = ".partial"  # the suffix of a file that is still being written


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically: beside it first, then by renaming."""
    partial = path.with_name(path.name + PARTIAL)
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file atomically."""
    write_text(path, json.dumps(content, indent=2) + "\n")


@contextlib.contextmanager
def locked(path: Path, what: str, timeout: float = 0.0) -> Iterator[None]:
    """Holds the lock of a file; it is released when its process ends, however that ends.

    Args:
        path: The file, which is made if it does not exist and never removed.
        what: What the lock protects, for the message.
        timeout: Seconds to wait for another process to release it.

    Raises:
        ValueError: If another process still holds it then.
    """
    try:
        lock = filelock.FileLock(path).acquire(timeout=timeout, poll_interval=0.2)
    except filelock.Timeout:
        raise ValueError(f"{what} is in use by another process.") from None
    with lock:
        yield
