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

import itertools
import zipfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from rllib_odac.data.logged import LoggedEpisode, logged_episode
from rllib_odac.replay.episodes import ACTIONS, COLUMNS, cut_episodes
from rllib_odac.replay.file import read_arrays
from rllib_odac.storage import PLACE, Storage

MINARI = "data/main_data.hdf5"
PARQUET, NPZ = ".parquet", ".npz"

Columns = dict[str, Any]


def read_episodes(path: PLACE, goal: Sequence[int] | None = None) -> Iterator[LoggedEpisode]:
    """Reads a log, file by file.

    Args:
        path: A file, or a folder of files of one kind; a URI will do.
        goal: Coordinates of the observation that are the achieved goal, where the log names none;
            by default all of them.

    Yields:
        Its episodes, in the order of the files' names.

    Raises:
        ValueError: With one sentence on the first file, episode and field that is wrong.
    """
    place = Storage.of(path)
    is_empty = True
    widths: dict[str, int] | None = None
    for file, read in _files(place):
        for number, columns in enumerate(read(file)):
            episode = logged_episode(columns, f"'{file}', episode {number}", goal)
            widths = widths or episode.widths
            for name, width in widths.items():
                if episode.widths[name] != width:
                    raise ValueError(
                        f"{episode.where}: {name} has {episode.widths[name]} numbers a row, but "
                        f"must have {width} as in the episodes before it."
                    )
            is_empty = False
            yield episode
    if is_empty:
        raise ValueError(f"'{place}' holds no episode.")


def _files(place: Storage) -> list[tuple[Storage, Callable[[Storage], Iterator[Columns]]]]:
    """The files of a log, each with what reads its episodes."""
    kinds = {PARQUET: _parquet, NPZ: _npz}
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
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(file.path, filesystem=file.filesystem)
    except (OSError, pyarrow.ArrowException) as error:
        raise ValueError(f"'{file}' is damaged: {' '.join(str(error).split())}") from None
    if "episode" not in table.column_names:
        raise ValueError(f"'{file}' has no column 'episode', but must; see `odac record`.")
    numbers = table["episode"].to_numpy()
    if not len(numbers):
        return
    columns = {n: _matrix(file, n, table[n]) for n in table.column_names if n != "episode"}
    starts = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
    for start, end in itertools.pairwise(starts):
        # The last row of an episode has no action.
        yield {name: rows[start : end - (name == ACTIONS)] for name, rows in columns.items()}


def _matrix(file: Storage, name: str, column: Any) -> Any:
    """(N, W) numbers in the rows of a column of lists; (N, 1) in one of numbers."""
    lists = column.combine_chunks()
    values = lists.flatten() if hasattr(lists, "flatten") else lists
    try:
        return values.to_numpy(zero_copy_only=False).reshape(len(lists), -1)
    except ValueError:
        raise ValueError(f"'{file}': {name} must have as many numbers in each row.") from None


def _npz(file: Storage) -> Iterator[Columns]:
    try:
        with file.open() as stream, np.load(stream, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"'{file}' is damaged: {' '.join(str(error).split())}") from None
    if "header" in arrays:
        with file.open() as stream:
            yield from _replay(read_arrays(stream, f"'{file}'")[1])
    elif "terminals" in arrays:
        yield from _ogbench(file, arrays)
    else:
        plural = {"observations": "observation", "action": "actions"}
        yield {plural.get(name, name): values for name, values in arrays.items()}


def _replay(arrays: dict[str, Any]) -> Iterator[Columns]:
    columns = {name: arrays[name] for name in (*COLUMNS, ACTIONS)}
    for episode in cut_episodes(columns, arrays["episodes"].tolist()):
        rows = {name: getattr(episode, name) for name in columns}
        yield rows | {"terminated": episode.terminated, "is_unit": True}


def _ogbench(file: Storage, arrays: dict[str, Any]) -> Iterator[Columns]:
    """Episodes one after the other; the last row of each has no next state."""
    rows = {name: arrays[name] for name in ("observations", "actions") if name in arrays}
    count = len(arrays["terminals"])
    for name, values in rows.items():
        if len(values) != count:
            raise ValueError(
                f"'{file}': {name} has {len(values)} rows, but must have {count} as terminals."
            )
    start = 0
    for end in (np.flatnonzero(arrays["terminals"]) + 1).tolist():
        observations, actions = rows.get("observations"), rows.get("actions")
        yield {
            "observation": None if observations is None else observations[start:end],
            "actions": None if actions is None else actions[start : end - 1],
        }
        start = end
    if start < count:
        raise ValueError(
            f"'{file}': terminals ends with {count - start} rows of an episode without an end."
        )


def _minari(file: Storage) -> Iterator[Columns]:
    try:
        import h5py
    except ImportError:
        raise ValueError(
            f"'{file}' is a Minari data set, which needs the package 'h5py': pip install h5py"
        ) from None
    try:
        with file.open() as stream, h5py.File(stream, "r") as stored:
            names = sorted(stored, key=lambda name: int(name.rpartition("_")[2]))
            for name in names:
                group = stored[name]
                observations = group["observations"]
                is_dict = hasattr(observations, "keys")
                columns = {key: observations[key][()] for key in observations} if is_dict else {}
                if not is_dict:
                    columns["observation"] = observations[()]
                ended = group["terminations"][()] if "terminations" in group else False
                yield columns | {"actions": group["actions"][()], "terminated": ended}
    except (OSError, KeyError) as error:
        raise ValueError(f"'{file}' is damaged: {' '.join(str(error).split())}") from None
