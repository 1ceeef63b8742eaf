"""Checkpoints on disk: whole or absent, with the size and checksum of every file.

A checkpoint is what RLlib writes, one array file for the replay of each learner (`shards`), and
`odac.json`, the manifest, which is written last. Local directories are written beside their place
and renamed. Checksums are SHA-256: `sha256sum` checks them too, and next to writing to a disk they
cost little. They find damage, not malice: the files that RLlib pickles are to be trusted or left.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pyarrow.fs import FileSystem

from rllib_odac.checkpoints.storage import Fingerprint, Storage

MANIFEST = "odac.json"
CHECKPOINT_VERSION = 3
REVISION_OF_VERSION_2 = "ff4bbbb"  # the last one of rllib_odac 0.1
REPLAY_DIRECTORY = "replay"
SEAL = "sha256"  # of the manifest itself, without this entry


class DamagedCheckpoint(ValueError):
    """A checkpoint that is incomplete, or is not what was written."""


# The manifest ------------------------------------------------------------------------------------


def write_manifest(
    checkpoint: Storage, content: Mapping[str, Any], elsewhere: Mapping[str, Fingerprint]
) -> None:
    """Writes what a checkpoint says of itself, which makes it whole.

    Args:
        checkpoint: Its directory, with every other file in it.
        content: What the manifest is to say.
        elsewhere: Fingerprints of files that are known already, by name.
    """
    files = dict(elsewhere)
    for name in set(checkpoint.files()) - {MANIFEST} - elsewhere.keys():
        files[name] = (checkpoint / name).fingerprint()
        (checkpoint / name).synchronize()
    manifest = {**content, "version": CHECKPOINT_VERSION, "files": dict(sorted(files.items()))}
    text = json.dumps(manifest | {SEAL: _seal(manifest)}, indent=2) + "\n"
    (checkpoint / MANIFEST).write(lambda stream: stream.write(text.encode()))


def read_manifest(checkpoint: Storage | str | os.PathLike[str]) -> dict[str, Any]:
    """What a checkpoint says of itself; it is written last, so without it nothing is whole.

    Raises:
        DamagedCheckpoint: If the directory is no whole checkpoint of ODAC.
        ValueError: If it is one of another version.
    """
    place = checkpoint if isinstance(checkpoint, Storage) else Storage.of(checkpoint)
    shown = checkpoint  # as the user wrote it
    try:
        with (place / MANIFEST).open() as file:
            text = file.read()
    except OSError:
        final = Path(place.path) / "checkpoint_final"
        inside = " (its checkpoint_final is)" if place.is_local and final.is_dir() else ""
        raise DamagedCheckpoint(f"'{shown}' is no whole checkpoint of ODAC{inside}.") from None
    try:
        manifest: dict[str, Any] = json.loads(text)
        version, seal = manifest.get("version"), manifest.pop(SEAL, None)
        is_sealed = seal == _seal(manifest)
    except (ValueError, AttributeError):
        version, is_sealed = CHECKPOINT_VERSION, False
    if version == 2:
        raise ValueError(
            f"'{shown}' is a checkpoint of rllib_odac 0.1, from which this version cannot go on: "
            f"go on with version 0.1 (revision {REVISION_OF_VERSION_2}), or load its policy with "
            "load_policy or `odac export`, which read it as it is."
        )
    if version != CHECKPOINT_VERSION:
        raise ValueError(
            f"'{shown}' is a checkpoint of version {version}, but only version "
            f"{CHECKPOINT_VERSION} can be read."
        )
    if not is_sealed:
        raise DamagedCheckpoint(
            f"The checkpoint '{shown}' is damaged: '{MANIFEST}' is not what was written."
        )
    return manifest


def check_files(
    checkpoint: Storage, manifest: Mapping[str, Any], without: str = REPLAY_DIRECTORY
) -> None:
    """Checks that every file is there in its size, and the contents but of those in `without`.

    Raises:
        DamagedCheckpoint: With the name of the first file that is not what it was.
    """
    for name, expected in manifest["files"].items():
        size = (checkpoint / name).size
        if size is None:
            raise DamagedCheckpoint(f"The checkpoint '{checkpoint}' lacks the file '{name}'.")
        if size != expected["bytes"]:
            raise DamagedCheckpoint(
                f"The checkpoint '{checkpoint}' is damaged: '{name}' has {size} bytes, but was "
                f"written with {expected['bytes']}."
            )
        if not without or not name.startswith(without + "/"):
            check_file(checkpoint / name, expected)


def check_file(file: Storage, expected: Fingerprint) -> None:
    """Checks the content of one file of a checkpoint.

    Raises:
        DamagedCheckpoint: If it is not what was written.
    """
    if file.fingerprint() != expected:
        raise DamagedCheckpoint(
            f"The checkpoint is damaged: '{file}' is not what was written (by its SHA-256)."
        )


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


def check_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Checks every byte of a checkpoint and returns its manifest.

    Raises:
        ValueError: If it is not whole; the sentence names the file.
    """
    place = Storage.of(path)
    manifest = read_manifest(place)
    check_files(place, manifest, without="")
    return manifest


def _seal(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


# Whole or absent ----------------------------------------------------------------------------------


@contextlib.contextmanager
def atomic_directory(place: Storage) -> Iterator[Storage]:
    """The directory to write a checkpoint into. If that fails, nothing of it remains.

    It is another one beside, which takes the place of nothing or of an earlier checkpoint at the
    end. Where the place is a directory that holds other things, it is one inside, which is emptied
    into it, the manifest last. A file system of another kind cannot rename: there the manifest,
    which comes last, makes what is written whole.

    Raises:
        OSError: With one sentence, if something cannot be written.
    """
    target, before = Path(place.path), set()
    replaces = place.is_local and _may_be_replaced(target)
    if place.is_local:
        draft = Storage.of(_beside(target, "partial") if replaces else target / "odac.partial")
        shutil.rmtree(draft.path, ignore_errors=True)
    else:
        draft, before = place, place.names()
    try:
        draft.make_directory()
        (draft / MANIFEST).remove()
        yield draft
        if replaces:
            _take_place(Path(draft.path), target)
        elif place.is_local:
            _move_in(Path(draft.path), target)
    except BaseException as error:
        if place.is_local:
            shutil.rmtree(draft.path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                for name in place.names() - before:
                    (place / name).remove()
        if isinstance(error, OSError):
            reason = os.strerror(error.errno) if error.errno else " ".join(str(error).split())
            raise OSError(
                f"The checkpoint '{place}' cannot be written ({reason}); nothing of it is left, "
                "and earlier ones are as they were."
            ) from error
        raise


def locate_checkpoint(place: Storage) -> Storage:
    """The place of a checkpoint, or of the one before if its replacement was interrupted."""
    before = _beside(Path(place.path), "replaced")
    if place.is_local and not Path(place.path).exists() and before.exists():
        return Storage(place.filesystem, str(before))
    return place


def _may_be_replaced(target: Path) -> bool:
    """Whether there is nothing, or a checkpoint and nothing else."""
    if not target.exists():
        return True
    try:
        files = read_manifest(target)["files"]
    except ValueError:
        return False
    return set(os.listdir(target)) <= {MANIFEST, *(name.split("/")[0] for name in files)}


def _take_place(partial: Path, target: Path) -> None:
    before = _beside(target, "replaced")
    if target.exists():
        shutil.rmtree(before, ignore_errors=True)
        target.rename(before)
    try:
        partial.rename(target)
    except OSError:
        if before.exists():
            before.rename(target)
        raise
    Storage.of(target.parent).synchronize()
    shutil.rmtree(before, ignore_errors=True)


def _move_in(partial: Path, target: Path) -> None:
    (target / MANIFEST).unlink(missing_ok=True)
    for new in sorted(partial.iterdir(), key=lambda path: path.name == MANIFEST):
        old = target / new.name
        if old.is_dir():
            shutil.rmtree(old)
        new.replace(old)
    partial.rmdir()


def _beside(path: Path, what: str) -> Path:
    return path.with_name(f"{path.name}.{what}")


# The checkpoints of a run -------------------------------------------------------------------------


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
