"""What the files of studies and sweeps share: YAML, and fields of `RunSpec` in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from rllib_odac.declarations import declarations
from rllib_odac.experiments.spec import RunSpec, check_fields, check_mapping, read_spec
from rllib_odac.tuned import tuned_file

RUN_FIELDS = [name for name in declarations(RunSpec) if name != "seed"]


def read_yaml(path: Path, keys: Iterable[str]) -> dict[str, Any]:
    """What a study's YAML file holds.

    Raises:
        ValueError: If it cannot be read, is no mapping, or has a key that is not among `keys`.
    """
    try:
        stored = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"study is '{path}', which cannot be read: {reason}.") from None
    return dict(check_mapping(f"study '{path}'", stored, keys))


def run_fields(where: str, given: Any, directory: Path) -> dict[str, Any]:
    """Fields of a `RunSpec` but its seed.

    Args:
        where: What gives them, for the message.
        given: The fields, or the path of a JSON file that holds them, or a file of `tuned`.
        directory: What the path is relative to.

    Raises:
        ValueError: If the file cannot be read, or there is no such field.
    """
    if not isinstance(given, str | Path):
        return check_fields(where, given, RUN_FIELDS)
    with explained(where):
        path = directory / given
        stored = read_spec(path if path.exists() else tuned_file(str(given)) or path)
    stored.pop("seed", None)  # which a run's own config.json has
    return stored


@contextlib.contextmanager
def explained(where: str) -> Iterator[None]:
    """Says of a ValueError where it comes from."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
