"""Where a sweep keeps everything: a directory, or a URI of S3, GCS or what else Arrow knows."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.fs


@dataclass(frozen=True)
class Storage:
    """A folder in some file system.

    Attributes:
        uri: What Ray Tune calls the folder: an absolute path or a URI.
        filesystem: The file system.
        path: The folder in it.
    """

    uri: str
    filesystem: pyarrow.fs.FileSystem
    path: str

    @classmethod
    def at(cls, told: str) -> Storage:
        """The folder of that path or URI, which is made and tried by writing to it.

        Raises:
            ValueError: If it cannot be written.
        """
        uri = told if "://" in told else str(Path(told).expanduser().absolute())
        try:
            filesystem, path = pyarrow.fs.FileSystem.from_uri(uri)
            storage = cls(uri.rstrip("/"), filesystem, path.rstrip("/"))
            filesystem.create_dir(storage.path, recursive=True)
            trial = f".written-{uuid.uuid4().hex}"
            storage.write(trial, b"")
            filesystem.delete_file(f"{storage.path}/{trial}")
        except (OSError, ValueError, NotImplementedError) as error:  # Arrow's own are both of them
            reason = " ".join(str(error).split()).rstrip(".")
            raise ValueError(f"storage is '{told}', which cannot be written: {reason}.") from None
        return storage

    def __truediv__(self, name: str) -> Storage:
        return Storage(f"{self.uri}/{name}", self.filesystem, f"{self.path}/{name}")

    def read_json(self, name: str) -> Any:
        """What a JSON file holds, or None where there is none."""
        path = f"{self.path}/{name}"
        if self.filesystem.get_file_info(path).type != pyarrow.fs.FileType.File:
            return None
        with self.filesystem.open_input_stream(path) as file:
            return json.loads(file.readall())

    def write(self, name: str, content: bytes) -> None:
        """Writes a file."""
        with self.filesystem.open_output_stream(f"{self.path}/{name}") as file:
            file.write(content)

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Writes a JSON file."""
        self.write(name, (json.dumps(content, indent=2) + "\n").encode())

    def upload(self, directory: str | Path) -> None:
        """Copies a local directory's files here."""
        self.filesystem.create_dir(self.path, recursive=True)
        pyarrow.fs.copy_files(
            str(directory),
            self.path,
            source_filesystem=pyarrow.fs.LocalFileSystem(),
            destination_filesystem=self.filesystem,
        )
