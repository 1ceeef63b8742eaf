"""What study files and search files share: YAML, and fields of `RunSpec` in it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from rllib_odac.declarations import declarations
from rllib_odac.experiments.spec import RunSpec, read_spec


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


def read_run_fields(where: str, given: Any, directory: Path) -> dict[str, Any]:
    """As `run_fields`; instead of the fields, a path of a JSON file in `directory` may be given."""
    if not isinstance(given, str | Path):
        return run_fields(where, given)
    with explained(where):
        stored = read_spec(directory / given)
    stored.pop("seed", None)  # which a run's own config.json has
    return stored


def run_fields(where: str, given: Any) -> dict[str, Any]:
    """Fields of a `RunSpec` but its seed, as JSON would give them back: equal runs compare equal.

    Raises:
        ValueError: If there is no such field, or JSON cannot hold it.
    """
    known = [name for name in declarations(RunSpec) if name != "seed"]
    settings = check_mapping(where, given, known).get("settings", {})
    if not isinstance(settings, Mapping):
        raise ValueError(f"{where} has the settings {settings!r}, but they must be a mapping.")
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(given)))
    except TypeError as error:
        raise ValueError(f"{where} must be such as JSON can hold: {error}.") from None
    return plain


def changed_fields(spec: RunSpec) -> dict[str, Any]:
    """The fields that differ from their defaults, so that a new field changes no old digest."""
    declared = declarations(RunSpec)
    return {name: value for name, value in asdict(spec).items() if value != declared[name].default}


def check_mapping(where: str, given: Any, allowed: Iterable[str]) -> Mapping[str, Any]:
    """Returns a mapping whose keys are all allowed.

    Raises:
        ValueError: If it is something else.
    """
    keys = list(allowed)
    if not isinstance(given, Mapping):
        raise ValueError(f"{where} is {given!r}, but must be a mapping with some of {keys}.")
    for name in given:
        if name not in keys:
            raise ValueError(f"{where} has the key {name!r}, but must use {keys}.")
    return given


def check_choice(where: str, value: Any, allowed: Iterable[Any]) -> None:
    """Raises a ValueError if a value is not among those allowed."""
    if value not in (choices := list(allowed)):
        raise ValueError(f"{where} has {value!r}, but must use one of {choices}.")


@contextlib.contextmanager
def explained(where: str) -> Iterator[None]:
    """Says of a ValueError where it comes from."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
