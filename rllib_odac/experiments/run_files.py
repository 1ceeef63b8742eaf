"""`RunFiles`: a run's directory, on this machine or at a URI."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rllib_odac.files import PARTIAL, locked
from rllib_odac.lease import Lease
from rllib_odac.storage import PLACE, Storage

LOCK = ".lock"  # which one process at a time holds
LEASE = "lease.txt"  # the same where files cannot be locked


class RunFiles:
    """Files of a run's directory, by name.

    Files that others write, such as TensorBoard, are written on this machine and published.

    Args:
        out: Path or URI of the directory.

    Raises:
        ValueError: If it is a file, or holds something else than a run.
    """

    def __init__(self, out: PLACE) -> None:
        self.place = Storage.of(out)
        self._lease: Lease | None = None
        if self.place.is_local:
            self._here = Path(self.place.path)
        else:
            self._here = Path(tempfile.mkdtemp(prefix="odac-run-"))
            atexit.register(shutil.rmtree, self._here, ignore_errors=True)
        try:
            if self.place.size is not None:
                raise ValueError(f"out is '{self.place}', which is a file; it must be a directory.")
            names = self.place.names() if self.place.is_directory else set()
        except OSError as error:
            raise ValueError(f"out is '{self.place}', which cannot be read: {error}.") from None
        # A run that was killed before it began may leave half a config.json.
        others = names - {f"config.json{PARTIAL}", LOCK, LEASE}
        if others and "config.json" not in names:
            raise ValueError(
                f"out is '{self.place}', which holds other files; it must be empty, new, or a run "
                "to resume."
            )

    def prepare(self) -> None:
        """Makes the directory.

        Raises:
            ValueError: If it cannot be made or written to.
        """
        try:
            self.place.make_directory()
        except (OSError, ValueError, NotImplementedError) as error:  # PyArrow's are of these
            raise ValueError(f"out is '{self.place}', which cannot be made: {error}.") from None
        try:
            if not self.place.is_local:
                self.place.check_writable()
            is_writable = not self.place.is_local or os.access(self.place.path, os.W_OK)
        except (OSError, ValueError, NotImplementedError):
            is_writable = False
        if not is_writable:
            raise ValueError(f"out is '{self.place}', which cannot be written to.")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes from training in the directory meanwhile.

        Raises:
            ValueError: If one does.
        """
        if self.place.is_local:
            with locked(self._here / LOCK, f"out '{self.place}'"):
                yield
            return
        with Lease(self.place / LEASE, f"out '{self.place}'").held() as self._lease:
            yield

    def check(self) -> None:
        """Raises a RuntimeError if the directory is not this process's any more."""
        if self._lease is not None:
            self._lease.check()

    def here(self, name: str) -> Path:
        """Where a file or directory is written on this machine; `publish` takes it to its place."""
        return self._here / name

    def publish(self, name: str) -> None:
        """Copies what was written on this machine to its place, if that is elsewhere."""
        if self.place.is_local:
            return
        path = self._here / name
        for file in path.rglob("*") if path.is_dir() else [path]:
            if file.is_file():
                target = self.place / file.relative_to(self._here).as_posix()
                target.write_bytes(file.read_bytes())

    def read_json(self, name: str) -> Any:
        """What a JSON file holds; None if there is none.

        Raises:
            ValueError: If it is damaged.
        """
        text = self.read_text(name)
        try:
            return None if text is None else json.loads(text)
        except ValueError as error:
            raise ValueError(f"'{self.place / name}' is damaged: {error}.") from None

    def read_text(self, name: str) -> str | None:
        """The text of a file; None if there is none."""
        return (self.place / name).read_text()

    def write_json(self, name: str, content: Any) -> None:
        """Replaces a file by JSON."""
        self.write_text(name, json.dumps(content, indent=2) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Replaces a text file; readers find the earlier one or the new one, whole."""
        (self.place / name).replace_text(text)
