"""`read_episodes`: the episodes of a log, whatever format it is in.

| format | what it is |
|---|---|
| Parquet | what `odac record` writes: a row for each state, see `record` |
| Minari | a local data set's folder, with `data/main_data.hdf5`; needs `pip install h5py` |
| OGBench | `.npz` with `observations`, `actions` and `terminals`, one row after the other |
| an episode | `.npz` with `observation` (T + 1 rows), `actions` (T) and perhaps goals |
| replay | a checkpoint of ours, or its shards; actions are in [-1, 1] |
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet

from rllib_odac.data.logged import LoggedEpisode, logged_episode
from rllib_odac.data.npz import Columns, damage_of, read_npz
from rllib_odac.replay.episodes import ACTIONS, COLUMNS
from rllib_odac.storage import PLACE, Storage

MINARI = "data/main_data.hdf5"
PARQUET, NPZ = ".parquet", ".npz"
REQUIRED = ("observation", ACTIONS)
ROWS_AT_A_TIME = 16_384  # of a Parquet file

LogFile = tuple[Storage, Callable[[Storage], Iterator[Columns]]]  # and what reads its episodes


def read_episodes(path: PLACE, goal: Sequence[int] | None = None) -> Iterator[LoggedEpisode]:
    """Reads a log, file by file, of which little is in memory at any time.

    Args:
        path: A file, or a folder of files of one kind; a URI will do.
        goal: Coordinates of the observation that are the achieved goal, where the log names none;
            by default all of them.

    Yields:
        Its episodes, in the order of the files' names.

    Raises:
        ValueError: With one sentence on the first file, episode and field that is wrong.
    """
    is_empty = True
    for episode in read_files(log_files(path), goal):
        is_empty = False
        yield episode
    if is_empty:
        raise ValueError(f"'{Storage.of(path)}' holds no episode.")


def read_files(
    files: Sequence[LogFile],
    goal: Sequence[int] | None,
    widths: Mapping[str, int] | None = None,
) -> Iterator[LoggedEpisode]:
    """The episodes of some files of a log, in their order.

    Args:
        files: Of `log_files`.
        goal: As `read_episodes` takes it.
        widths: Numbers in a row of each column, as `LoggedEpisode.widths`; by default those of the
            first episode.

    Raises:
        ValueError: With one sentence on the first file, episode and field that is wrong.
    """
    for file, read in files:
        for number, columns in enumerate(read(file)):
            episode = logged_episode(columns, f"'{file}', episode {number}", goal)
            widths = widths or episode.widths
            for name, width in widths.items():
                if episode.widths[name] != width:
                    raise ValueError(
                        f"{episode.where}: {name} has {episode.widths[name]} numbers a row, but "
                        f"must have {width} as in the episodes before it."
                    )
            yield episode


def log_files(path: PLACE) -> list[LogFile]:
    """The files of a log by their names, each with what reads its episodes.

    Raises:
        ValueError: If there are none.
    """
    place = Storage.of(path)
    kinds = {PARQUET: _parquet, NPZ: read_npz}
    try:
        if place.size is not None:
            for suffix, read in kinds.items():
                if place.name.endswith(suffix):
                    return [(place, read)]
            if place.name.endswith(".hdf5"):
                return [(place, _minari)]
            raise ValueError(f"'{place}' must end in .parquet, .npz or .hdf5.")
        if not place.is_directory:
            raise ValueError(f"There is no file or folder '{place}' to read data from.")
        if (place / MINARI).size is not None:
            return [(place / MINARI, _minari)]
        folder = place / "replay" if (place / "odac.json").size is not None else place
        names = folder.names()
    except OSError as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ValueError(f"'{place}' cannot be read: {reason}.") from None
    for suffix, read in kinds.items():
        if found := sorted(name for name in names if name.endswith(suffix)):
            return [(folder / name, read) for name in found]
    raise ValueError(
        f"'{place}' holds no data: it must be a folder of .parquet or .npz files, a Minari data "
        "set, or a checkpoint with its replay."
    )


def _parquet(file: Storage) -> Iterator[Columns]:
    """Episodes of a file, of whose rows some thousand are held at a time, and those of one."""
    with contextlib.ExitStack() as opened:
        with damage_of(file):
            stored = pyarrow.parquet.ParquetFile(opened.enter_context(file.open()))
        names = stored.schema_arrow.names
        for name in ("episode", *REQUIRED):
            if name not in names:
                raise ValueError(
                    f"'{file}' has no column '{name}', but must; it has {names}: see `odac record`."
                )
        known = [n for n in names if n in (*COLUMNS, ACTIONS, "episode", "terminated")]
        batches = stored.iter_batches(ROWS_AT_A_TIME, columns=known)
        held: list[Any] = []  # rows of the episode that the next batch may go on with
        while True:
            with damage_of(file):
                batch = next(batches, None)
            if batch is None:
                break
            table = pyarrow.Table.from_batches([*held, batch])
            numbers = table["episode"].to_numpy()
            starts = [0, *(np.flatnonzero(numbers[1:] != numbers[:-1]) + 1).tolist()]
            if len(starts) > 1:
                yield from _cut(table, starts)
            held = table.slice(starts[-1]).to_batches()
        if held:
            table = pyarrow.Table.from_batches(held)
            yield from _cut(table, [0, len(table)])


def _cut(table: Any, starts: list[int]) -> Iterator[Columns]:
    """Episodes of consecutive rows; the last row of each has no action."""
    names = [name for name in table.column_names if name != "episode"]
    columns = {name: _matrix(table[name].slice(0, starts[-1])) for name in names}
    for start, end in itertools.pairwise(starts):
        yield {name: rows[start : end - (name == ACTIONS)] for name, rows in columns.items()}


def _matrix(column: Any) -> Any:
    """(N, W) numbers in the rows of a column of lists, as lists where their lengths differ."""
    rows = column.combine_chunks()
    if not hasattr(rows, "flatten"):
        return rows.to_numpy(zero_copy_only=False)
    lengths = pyarrow.compute.list_value_length(rows).to_numpy(zero_copy_only=False)
    if (lengths != lengths[:1]).any():
        return rows.to_pylist()
    return rows.flatten().to_numpy(zero_copy_only=False).reshape(len(rows), -1)


def _minari(file: Storage) -> Iterator[Columns]:
    try:
        import h5py
    except ImportError:
        raise ValueError(
            f"'{file}' is a Minari data set, which needs the package 'h5py': pip install h5py"
        ) from None
    try:
        with file.open() as stream, h5py.File(stream, "r") as stored:
            names = [name for name in stored if name.startswith("episode_")]
            for name in sorted(names, key=lambda name: int(name.rpartition("_")[2])):
                group = stored[name]
                states = group.get("observations", {})
                fields = states if hasattr(states, "items") else {"observation": states}
                fields = {**fields, ACTIONS: group.get(ACTIONS)}
                columns = {n: rows[()] for n, rows in fields.items() if hasattr(rows, "shape")}
                ended = group["terminations"][()] if "terminations" in group else False
                yield columns | {"terminated": ended}
    except (OSError, KeyError, RuntimeError) as error:
        raise ValueError(f"'{file}' is damaged: {' '.join(str(error).split())}") from None
