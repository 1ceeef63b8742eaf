"""`Storage`: files and directories on any of PyArrow's file systems, this machine's among them."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem, copy_files

CHUNK = 2**20  # bytes read at once

Fingerprint = dict[str, Any]  # "bytes" and "sha256" of a file


@dataclass(frozen=True)
class Storage:
    """A file or directory on a file system, which need not be this machine's.

    Attributes:
        filesystem: PyArrow's; it travels to other processes.
        path: The path there.
    """

    filesystem: FileSystem
    path: str

    @classmethod
    def of(
        cls, path: str | os.PathLike[str] | None, filesystem: FileSystem | None = None
    ) -> Storage:
        """The file or directory of a path or URI; None is a new one among the temporary files."""
        text = os.fspath(path or Path(tempfile.gettempdir()) / str(uuid.uuid4()))
        if filesystem is None:
            local = "://" not in text
            filesystem, text = FileSystem.from_uri(os.path.abspath(text) if local else text)
        return cls(filesystem, text)

    def __truediv__(self, name: str) -> Storage:
        return Storage(self.filesystem, f"{self.path.rstrip('/')}/{name}")

    def __str__(self) -> str:
        return self.path

    @property
    def is_local(self) -> bool:
        """Whether it is on a file system of this machine, where directories can be renamed."""
        return isinstance(self.filesystem, LocalFileSystem)

    @property
    def size(self) -> int | None:
        """Bytes of the file; None if there is no such file."""
        info = self.filesystem.get_file_info(self.path)
        return info.size if info.type == FileType.File else None

    def names(self) -> set[str]:
        """What is in the directory, if it is there."""
        infos = self.filesystem.get_file_info(FileSelector(self.path, allow_not_found=True))
        return {info.base_name for info in infos}

    def files(self) -> list[str]:
        """Files in the directory and those below it, by their path from it."""
        infos = self.filesystem.get_file_info(FileSelector(self.path, recursive=True))
        return [os.path.relpath(i.path, self.path) for i in infos if i.type == FileType.File]

    def make_directory(self) -> None:
        """Makes the directory and those that it lies in."""
        self.filesystem.create_dir(self.path, recursive=True)

    def remove(self) -> None:
        """Removes the file, or the directory with all that is in it, if it is there."""
        if self.size is not None:
            self.filesystem.delete_file(self.path)
            return
        with contextlib.suppress(FileNotFoundError):
            self.filesystem.delete_dir(self.path)

    def synchronize(self) -> None:
        """Makes sure that a file, or the names in a directory, would survive a loss of power."""
        if not self.is_local:
            return
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def open(self) -> Any:
        """The file for reading, in any order."""
        return self.filesystem.open_input_file(self.path)

    def write(self, write: Callable[[io.RawIOBase], object]) -> Fingerprint:
        """Writes the file once, front to back, and returns the fingerprint of what was written."""
        if self.is_local:
            with open(self.path, "wb") as file:
                digest = _Digest(file)
                write(digest)
                file.flush()
                os.fsync(file.fileno())
        else:
            with self.filesystem.open_output_stream(self.path, compression=None) as file:
                digest = _Digest(file)
                write(digest)
        return digest.fingerprint

    def write_bytes(self, content: bytes) -> None:
        """Writes the file."""
        self.write(lambda file: file.write(content))

    def write_json(self, content: Any) -> None:
        """Writes the file as JSON."""
        self.write(lambda file: file.write((json.dumps(content, indent=2) + "\n").encode()))

    def read_json(self) -> Any:
        """What the JSON file holds; None if there is no such file."""
        if self.size is None:
            return None
        with self.open() as file:
            return json.loads(file.readall())

    def upload(self, directory: str | os.PathLike[str]) -> None:
        """Copies what is in a directory of this machine into this one, which is made."""
        self.make_directory()
        copy_files(
            os.fspath(directory),
            self.path,
            source_filesystem=LocalFileSystem(),
            destination_filesystem=self.filesystem,
        )

    def check_writable(self) -> None:
        """Makes the directory, then writes a file into it and removes it.

        Raises:
            OSError: If that fails, or one of PyArrow's errors, which are ValueErrors.
        """
        self.make_directory()
        attempt = self / f".written-{uuid.uuid4().hex}"
        attempt.write(lambda file: None)
        attempt.remove()

    def fingerprint(self) -> Fingerprint:
        """The fingerprint of the file as it is."""
        digest = _Digest(None)
        with self.filesystem.open_input_stream(self.path, compression=None) as file:
            while chunk := file.read(CHUNK):
                digest.write(chunk)
        return digest.fingerprint


class _Digest(io.RawIOBase):
    """A stream that passes on what is written, and takes its length and checksum along."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self._bytes = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        if self._file is not None:
            self._file.write(data)
        self._sha256.update(data)
        self._bytes += size
        return size

    @property
    def fingerprint(self) -> Fingerprint:
        return {"bytes": self._bytes, "sha256": self._sha256.hexdigest()}
