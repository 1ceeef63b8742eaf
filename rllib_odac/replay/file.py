"""The file format of a replay: NumPy's `.npz` without pickled objects, its header in JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from rllib_odac.replay.episodes import Array

FORMAT = "rllib_odac.GoalReplay"
FORMAT_VERSION = 1


def write_arrays(stream: Any, header: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Writes arrays and a header to a binary stream, from front to back."""
    text = json.dumps({"format": FORMAT, "version": FORMAT_VERSION, **header})
    columns: dict[str, Any] = {"header": np.frombuffer(text.encode(), dtype=np.uint8), **arrays}
    np.savez(stream, **columns)


def read_arrays(stream: Any, name: str) -> tuple[dict[str, Any], dict[str, Array]]:
    """The header and the arrays in a stream, which messages call `name`.

    Raises:
        ValueError: If it is no replay, of another version, or damaged.
    """
    try:
        with np.load(stream, allow_pickle=False) as file:
            arrays = {column: file[column] for column in file.files}
        header = json.loads(arrays.pop("header").tobytes())
    except Exception as error:
        raise ValueError(f"{name} is no replay file, or a damaged one: {error}") from error
    if header.get("format") != FORMAT or header["version"] != FORMAT_VERSION:
        raise ValueError(
            f"{name} is a replay of format {header.get('format')} version {header.get('version')}, "
            f"but only {FORMAT} version {FORMAT_VERSION} can be read."
        )
    return header, arrays
