"""Writing a checkpoint so that there is always a whole one: the new one, or the one before.

A local directory is written beside its place and renamed. Object stores cannot rename. There a new
checkpoint is written in its place, and made whole by its manifest, which comes last; one that
replaces another is written beside it, and copied within the store when it is whole.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from rllib_odac.checkpoints.manifest import MANIFEST, read_manifest
from rllib_odac.storage import Storage


@contextlib.contextmanager
def atomic_directory(place: Storage) -> Iterator[Storage]:
    """The directory to write a checkpoint into. If that fails, nothing of it remains.

    An earlier checkpoint in its place is there until the new one is whole. Where the place is a
    local directory that holds other things, the new one is written inside and emptied into it.

    Raises:
        OSError: With one sentence, if something cannot be written.
    """
    with (_local if place.is_local else _remote)(place) as draft:
        draft.make_directory()
        yield draft


def locate_checkpoint(place: Storage) -> Storage:
    """The place of a checkpoint, or of the one that is whole if a replacement was interrupted."""
    if place.is_local:
        before = _beside(place, "replaced")
        is_there = Path(place.path).exists() or not Path(before.path).exists()
        return place if is_there else before
    after = _beside(place, "partial")
    is_there = (place / MANIFEST).size is not None or (after / MANIFEST).size is None
    return place if is_there else after


@contextlib.contextmanager
def _local(place: Storage) -> Iterator[Storage]:
    target = Path(place.path)
    replaces = _may_be_replaced(target)
    draft = _beside(place, "partial") if replaces else place / "odac.partial"
    shutil.rmtree(draft.path, ignore_errors=True)
    with _nothing_left_of(place, lambda: shutil.rmtree(draft.path, ignore_errors=True)):
        yield draft
        if replaces:
            _take_place(Path(draft.path), target)
        else:
            _move_in(Path(draft.path), target)


@contextlib.contextmanager
def _remote(place: Storage) -> Iterator[Storage]:
    replacement = _beside(place, "partial")
    if locate_checkpoint(place) == replacement:  # a kill came between the two
        _copy_into(place, replacement)
    if (place / MANIFEST).size is None:
        before = place.names()

        def remove_new() -> None:
            for name in place.names() - before:
                (place / name).remove()

        with _nothing_left_of(place, remove_new):
            yield place
        return
    replacement.remove()
    with _nothing_left_of(place, replacement.remove):
        yield replacement
    _copy_into(place, replacement)


def _copy_into(place: Storage, replacement: Storage) -> None:
    """Puts a whole checkpoint into the place of another one, within the same store."""
    names = sorted(replacement.files(), key=lambda name: name == MANIFEST)
    try:
        (place / MANIFEST).remove()  # from here on it is the replacement that is found
        place.remove()
        place.make_directory()
        for name in names:
            place.filesystem.create_dir(os.path.dirname((place / name).path), recursive=True)
            place.filesystem.copy_file((replacement / name).path, (place / name).path)
    except OSError as error:
        raise OSError(
            f"The checkpoint '{place}' cannot be replaced ({' '.join(str(error).split())}); the "
            f"new one is whole in '{replacement}', and is found there."
        ) from error
    replacement.remove()


@contextlib.contextmanager
def _nothing_left_of(place: Storage, remove: Callable[[], None]) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        is_removed = False
        with contextlib.suppress(OSError):
            remove()
            is_removed = True
        if isinstance(error, OSError):
            reason = os.strerror(error.errno) if error.errno else " ".join(str(error).split())
            left = (
                "nothing of it is left, and earlier ones are as they were"
                if is_removed
                else "some of it may be left, which is no whole checkpoint"
            )
            raise OSError(
                f"The checkpoint '{place}' cannot be written ({reason}); {left}."
            ) from error
        raise


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
    before = target.with_name(f"{target.name}.replaced")
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


def _beside(place: Storage, what: str) -> Storage:
    return Storage(place.filesystem, f"{place.path.rstrip('/')}.{what}")
