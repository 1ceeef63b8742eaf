"""Finding checkpoints: the one asked for, the newest of a run, the newest whole one."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pyarrow.fs import FileSystem

from rllib_odac.checkpoints.atomic import locate_checkpoint
from rllib_odac.checkpoints.manifest import (
    MANIFEST,
    DamagedCheckpoint,
    check_checkpoint,
    check_files,
    read_manifest,
)
from rllib_odac.checkpoints.storage import Storage


def open_checkpoint(
    path: str | os.PathLike[str], filesystem: FileSystem | None = None
) -> tuple[Storage, dict[str, Any]]:
    """The place of a checkpoint and its manifest, when all but the contents of replay is checked.

    Raises:
        DamagedCheckpoint: If it is not whole; the sentence names the file, and the newest whole
            checkpoint of the same run, if there is one.
        ValueError: If it is one of another version.
    """
    place = locate_checkpoint(Storage.of(path, filesystem))
    with suggesting_whole_checkpoint(place):
        manifest = read_manifest(place)
        check_files(place, manifest)
    return place, manifest


def checkpoints_of_run(run: Path) -> list[Path]:
    """The checkpoints in a run's directory by their environment steps, newest first."""

    def env_steps(path: Path) -> float:
        if path.name.startswith("step_"):
            return int(path.name.removeprefix("step_"))
        try:  # a run that goes on outgrows its final one
            return float(read_manifest(path)["env_steps"])
        except ValueError:
            return math.inf

    paths = [*(run / "checkpoints").glob("step_*[0-9]"), run / "checkpoint_final"]
    return sorted((path for path in paths if path.is_dir()), key=env_steps, reverse=True)


@contextlib.contextmanager
def suggesting_whole_checkpoint(place: Storage) -> Iterator[None]:
    """Lets the message on a damaged checkpoint name the newest whole one of the same run."""
    try:
        yield
    except DamagedCheckpoint as error:
        path = Path(place.path)
        run = path.parent.parent if path.parent.name == "checkpoints" else path.parent
        others = [other for other in checkpoints_of_run(run) if other != path]
        whole = next(filter(_is_whole, others), None) if place.is_local else None
        if whole is None:
            raise
        text = f"{str(error).removesuffix('.')}; the newest whole one is '{whole}'."
        raise DamagedCheckpoint(text) from None


def resolve_checkpoint(path: str | os.PathLike[str]) -> Path:
    """The checkpoint itself or, of a run's directory, its newest whole one."""
    path = Path(path)
    if path.is_dir() and not (path / MANIFEST).exists():
        return next(filter(_is_whole, checkpoints_of_run(path)), path)
    return path


def _is_whole(path: Path) -> bool:
    try:
        check_checkpoint(path)
    except ValueError:
        return False
    return True


def restore_newest(run: Path, restore: Callable[[str], None]) -> Path | None:
    """Restores the newest whole checkpoint of a run, with one warning if newer ones are damaged.

    Returns:
        Its directory; None if the run has no checkpoint.

    Raises:
        DamagedCheckpoint: If none of them is whole.
    """
    for leftover in (run / "checkpoints").glob("*.partial"):  # of a save that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    damage: DamagedCheckpoint | None = None
    for path in checkpoints_of_run(run):
        try:
            restore(str(path))
        except DamagedCheckpoint as error:
            damage = damage or error
            continue
        if damage is not None:
            print(
                f"warning: {str(damage).removesuffix('.')}, and the run goes on from there.",
                file=sys.stderr,
            )
        return path
    if damage is not None:
        raise damage
    return None
