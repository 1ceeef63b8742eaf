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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem, copy_files

from rllib_odac.files import write_text

CHUNK = 2**20  # bytes read at once

PLACE = str | os.PathLike[str]  # of a file or directory: a path or a URI
Fingerprint = dict[str, Any]  # "bytes" and "sha256" of a file


def is_uri(path: PLACE) -> bool:
    """Whether it names a file or directory by its file system, such as s3://BUCKET/FOLDER."""
    return "://" in os.fspath(path)


@dataclass(frozen=True)
class Storage:
    """A file or directory on a file system, which need not be this machine's.

    Attributes:
        filesystem: PyArrow's; it travels to other processes.
        path: The path there.
        uri: What messages call it; the path by itself if it is empty.
    """

    filesystem: FileSystem
    path: str
    uri: str = field(default="", compare=False)

    @classmethod
    def of(
        cls, path: str | os.PathLike[str] | Storage | None, filesystem: FileSystem | None = None
    ) -> Storage:
        """The file or directory of a path or URI; None is a new one among the temporary files.

        Raises:
            ValueError: If the URI cannot be understood.
        """
        if isinstance(path, Storage):
            return path
        text = os.fspath(path or Path(tempfile.gettempdir()) / str(uuid.uuid4()))
        if filesystem is not None:
            return cls(filesystem, text)
        if not is_uri(text):
            return cls(LocalFileSystem(), os.path.abspath(text))
        try:
            filesystem, inside = FileSystem.from_uri(text)
        except (OSError, ValueError, NotImplementedError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise ValueError(
                f"'{text}' is no path and no URI that can be read, such as s3://BUCKET/FOLDER: "
                f"{reason}."
            ) from None
        shown = "" if isinstance(filesystem, LocalFileSystem) else text.partition("?")[0]
        return cls(filesystem, inside, shown)

    def __truediv__(self, name: str) -> Storage:
        uri = f"{self.uri.rstrip('/')}/{name}" if self.uri else ""
        return Storage(self.filesystem, f"{self.path.rstrip('/')}/{name}", uri)

    def __str__(self) -> str:
        return self.uri or self.path

    def __fspath__(self) -> str:
        if not self.is_local:
            raise TypeError(f"'{self}' is not on this machine.")
        return self.path

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rstrip("/").rpartition("/")[2]

    @property
    def parent(self) -> Storage:
        """The directory that it lies in."""
        path, uri = (text.rstrip("/").rpartition("/")[0] for text in (self.path, self.uri))
        return Storage(self.filesystem, path, uri)

    @property
    def is_directory(self) -> bool:
        """Whether there is such a directory."""
        return bool(self.filesystem.get_file_info(self.path).type == FileType.Directory)

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
        # Where directories are objects too, as with Google, some that hold files may have none.
        below = self.filesystem.type_name == "gcs"
        selector = FileSelector(self.path, allow_not_found=True, recursive=below)
        infos = self.filesystem.get_file_info(selector)
        return {os.path.relpath(info.path, self.path).split("/")[0] for info in infos}

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
        with contextlib.suppress(FileNotFoundError):  # each store says so in a way of its own
            if self.is_directory:
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

    def read_text(self) -> str | None:
        """The text in the file; None if there is no such file."""
        if self.size is None:
            return None
        with self.open() as file:
            return str(file.readall().decode())

    def replace_text(self, text: str) -> None:
        """Writes a text file so that readers find the earlier one or the new one, whole."""
        if self.is_local:
            write_text(Path(self.path), text)
        else:  # which is so for objects
            self.write_bytes(text.encode())

    def download(self, target: Path) -> Fingerprint:
        """Copies the file to this machine, and returns the fingerprint of what came."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "wb") as copy:
            digest = _Digest(copy)
            with self.filesystem.open_input_stream(self.path, compression=None) as file:
                while chunk := file.read(CHUNK):
                    digest.write(chunk)
        return digest.fingerprint

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


class Copies:
    """Copies of files from elsewhere on this machine, so that each is fetched once."""

    def __init__(self) -> None:
        self._paths: dict[str, Path] = {}

    def fetch(self, file: Storage) -> Fingerprint:
        """Copies a file, until `drop`, and returns the fingerprint of what came."""
        descriptor, name = tempfile.mkstemp(prefix="odac-")
        os.close(descriptor)
        self._paths[file.path] = Path(name)
        return file.download(Path(name))

    def open(self, file: Storage) -> Any:
        """The copy of a file, or the file itself where there is none, for reading in any order."""
        copy = self._paths.get(file.path)
        return file.open() if copy is None else open(copy, "rb")

    def drop(self) -> None:
        """Removes all copies."""
        for path in self._paths.values():
            path.unlink(missing_ok=True)
        self._paths.clear()
