"""Episodes in `.npz` files: OGBench's, one of an episode, and shards of our own replays.

OGBench's are read episode by episode, however large the file; the other two whole.
"""

from __future__ import annotations

import contextlib
import math
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow

from rllib_odac.replay.episodes import ACTIONS, COLUMNS, Array, cut_episodes
from rllib_odac.replay.file import read_arrays
from rllib_odac.storage import Storage

Columns = dict[str, Any]

DAMAGE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
    pyarrow.ArrowException,
)


@contextlib.contextmanager
def damage_of(file: Storage) -> Iterator[None]:
    """Says of what readers raise that the file is damaged, in one sentence with its name."""
    try:
        yield
    except DAMAGE as error:
        raise ValueError(f"'{file}' is damaged: {' '.join(str(error).split())}") from None


def read_npz(file: Storage) -> Iterator[Columns]:
    """The columns of each episode in a file.

    Raises:
        ValueError: If it is damaged, or rows are missing; the sentence names the file.
    """
    with contextlib.ExitStack() as opened:
        with damage_of(file):
            stream = opened.enter_context(file.open())
            archive = opened.enter_context(zipfile.ZipFile(stream))
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        if "header" in names:
            yield from _replay(read_arrays(stream, f"'{file}'")[1])
        elif "terminals" in names:
            yield from _ogbench(file, archive, names)
        else:
            plural = {"observations": "observation", "action": ACTIONS}
            yield {plural.get(name, name): _whole(file, archive, name) for name in names}


def _replay(arrays: dict[str, Any]) -> Iterator[Columns]:
    columns = {name: arrays[name] for name in (*COLUMNS, ACTIONS)}
    for episode in cut_episodes(columns, arrays["episodes"].tolist()):
        rows = {name: getattr(episode, name) for name in columns}
        yield rows | {"terminated": episode.terminated, "is_unit": True}


def _ogbench(file: Storage, archive: zipfile.ZipFile, names: list[str]) -> Iterator[Columns]:
    """Episodes one after the other; the last row of each has no next state."""
    terminals = _whole(file, archive, "terminals")
    rows = {n: _Rows(file, archive, n) for n in ("observations", "actions") if n in names}
    for name, each in rows.items():
        if len(each) != len(terminals):
            raise ValueError(
                f"'{file}': {name} has {len(each)} rows, but must have {len(terminals)} as "
                "terminals."
            )
    start = 0
    for end in (np.flatnonzero(terminals) + 1).tolist():
        taken = {name: each.take(end - start) for name, each in rows.items()}
        actions = taken.get("actions")
        yield {
            "observation": taken.get("observations"),
            "actions": None if actions is None else actions[:-1],
        }
        start = end
    if start < len(terminals):
        raise ValueError(
            f"'{file}': terminals ends with {len(terminals) - start} rows of an episode without "
            "an end."
        )


def _whole(file: Storage, archive: zipfile.ZipFile, name: str) -> Array:
    with damage_of(file), archive.open(f"{name}.npy") as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


class _Rows:
    """The rows of an array in an archive, front to back, without ever holding all of them."""

    def __init__(self, file: Storage, archive: zipfile.ZipFile, name: str) -> None:
        self._file = file
        with damage_of(file):
            self._stream = archive.open(f"{name}.npy")
            is_first = np.lib.format.read_magic(self._stream) == (1, 0)
            header = "read_array_header_1_0" if is_first else "read_array_header_2_0"
            shape, is_column_major, dtype = getattr(np.lib.format, header)(self._stream)
            if dtype.hasobject or is_column_major or not shape:
                raise ValueError(f"{name} must be an array of numbers, row by row.")
        self._count, self._row, self._dtype = shape[0], shape[1:], dtype

    def __len__(self) -> int:
        return int(self._count)

    def take(self, count: int) -> Array:
        """The next rows.

        Raises:
            ValueError: If there are not so many, or the file is damaged.
        """
        size = count * math.prod(self._row) * self._dtype.itemsize
        with damage_of(self._file):
            content = self._stream.read(size)
            return np.frombuffer(content, self._dtype).reshape(count, *self._row)
