"""Finding checkpoints: the one asked for, the newest of a run, the newest whole one."""

from __future__ import annotations

import atexit
import contextlib
import math
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pyarrow.fs import FileSystem

from rllib_odac.checkpoints.atomic import locate_checkpoint
from rllib_odac.checkpoints.manifest import (
    MANIFEST,
    REPLAY_DIRECTORY,
    DamagedCheckpoint,
    check_checkpoint,
    check_files,
    check_fingerprint,
    read_manifest,
)
from rllib_odac.storage import PLACE, Storage

CHECKPOINTS = "checkpoints"  # of a run, named by environment steps
FINAL = "checkpoint_final"  # the last one


def open_checkpoint(
    path: PLACE | Storage, filesystem: FileSystem | None = None
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


def checkpoints_of_run(run: PLACE | Storage) -> list[Storage]:
    """The checkpoints in a run's directory by their steps, newest first."""
    place = Storage.of(run)

    def steps(checkpoint: Storage) -> float:
        if checkpoint.name.startswith("step_"):
            return int(checkpoint.name.removeprefix("step_"))
        try:  # a run that goes on outgrows its final one
            manifest = read_manifest(checkpoint)
            return float(manifest.get("steps", manifest["env_steps"]))
        except ValueError:
            return math.inf

    names = (place / CHECKPOINTS).names()
    found = [place / CHECKPOINTS / name for name in names if re.fullmatch(r"step_\d+", name)]
    found += [final] if (final := place / FINAL).is_directory else []
    return sorted(found, key=steps, reverse=True)


@contextlib.contextmanager
def suggesting_whole_checkpoint(place: Storage) -> Iterator[None]:
    """Lets the message on a damaged checkpoint name the newest whole one of the same run."""
    try:
        yield
    except DamagedCheckpoint as error:
        run = place.parent.parent if place.parent.name == CHECKPOINTS else place.parent
        others = [other for other in checkpoints_of_run(run) if other != place]
        whole = next(filter(_is_whole, others), None)
        if whole is None:
            raise
        text = f"{str(error).removesuffix('.')}; the newest whole one is '{whole}'."
        raise DamagedCheckpoint(text) from None


def resolve_checkpoint(path: PLACE | Storage) -> Storage:
    """The checkpoint itself or, of a run's directory, its newest whole one."""
    place = Storage.of(path)
    if (place / MANIFEST).size is None:
        return next(filter(_is_whole, checkpoints_of_run(place)), place)
    return place


def checkpoint_here(path: PLACE | Storage) -> Path:
    """A checkpoint, or a run's newest whole one, as a directory of this machine.

    From elsewhere it is downloaded, its replay left out, into a directory that goes with this
    process.

    Raises:
        DamagedCheckpoint: If it is not whole.
        ValueError: If it is one of another version.
    """
    place = resolve_checkpoint(path)
    if place.is_local:
        return Path(open_checkpoint(place)[0].path)
    place = locate_checkpoint(place)
    manifest = read_manifest(place)
    target = Path(tempfile.mkdtemp(prefix="odac-"))
    atexit.register(shutil.rmtree, target, ignore_errors=True)
    (place / MANIFEST).download(target / MANIFEST)
    for name, expected in manifest["files"].items():
        if not name.startswith(f"{REPLAY_DIRECTORY}/"):
            try:
                arrived = (place / name).download(target / name)
            except FileNotFoundError:
                raise DamagedCheckpoint(
                    f"The checkpoint '{place}' lacks the file '{name}'."
                ) from None
            check_fingerprint(place / name, arrived, expected)
    return target


def _is_whole(checkpoint: Storage) -> bool:
    """Whether every byte is what was written; elsewhere replays are not read for it."""
    try:
        if checkpoint.is_local:
            check_checkpoint(checkpoint)
        else:
            check_files(checkpoint, read_manifest(checkpoint))
    except ValueError:
        return False
    return True


def restore_newest(run: PLACE | Storage, restore: Callable[[Storage], object]) -> Storage | None:
    """Restores the newest whole checkpoint of a run, with one warning if newer ones are damaged.

    Returns:
        Its directory; None if the run has no checkpoint.

    Raises:
        DamagedCheckpoint: If none of them is whole.
    """
    place = Storage.of(run)
    for name in (place / CHECKPOINTS).names():
        if place.is_local and name.endswith(".partial"):  # of a save that was killed
            (place / CHECKPOINTS / name).remove()
    damage: DamagedCheckpoint | None = None
    for checkpoint in checkpoints_of_run(place):
        try:
            restore(checkpoint)
        except DamagedCheckpoint as error:
            damage = damage or error
            continue
        if damage is not None:
            print(
                f"warning: {str(damage).removesuffix('.')}, and the run goes on from there.",
                file=sys.stderr,
            )
        return checkpoint
    if damage is not None:
        raise damage
    return None
