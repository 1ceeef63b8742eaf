"""What a checkpoint says of itself: every file with its size and checksum.

A checkpoint is what RLlib writes, one array file for the replay of each learner (`shards`), and
`odac.json`, the manifest, which is written last (`atomic`). Checksums are SHA-256: `sha256sum`
checks them too, and next to writing to a disk they cost little. They find damage, not malice: the
files that RLlib pickles are to be trusted or left.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from rllib_odac.storage import PLACE, Fingerprint, Storage

MANIFEST = "odac.json"
CHECKPOINT_VERSION = 3
REVISION_OF_VERSION_2 = "ff4bbbb"  # the last one of rllib_odac 0.1
REPLAY_DIRECTORY = "replay"
SEAL = "sha256"  # of the manifest itself, without this entry


class DamagedCheckpoint(ValueError):
    """A checkpoint that is incomplete, or is not what was written."""


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


def read_manifest(checkpoint: PLACE | Storage) -> dict[str, Any]:
    """What a checkpoint says of itself; it is written last, so without it nothing is whole.

    Raises:
        DamagedCheckpoint: If the directory is no whole checkpoint of ODAC.
        ValueError: If it is one of another version.
        OSError: If its storage cannot be read.
    """
    place = Storage.of(checkpoint)
    shown = checkpoint  # as the user wrote it
    try:
        with (place / MANIFEST).open() as file:
            text = file.read()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        final = (place / "checkpoint_final").is_directory
        inside = " (its checkpoint_final is)" if final else ""
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
    check_fingerprint(file, file.fingerprint(), expected)


def check_fingerprint(file: Storage, found: Fingerprint, expected: Fingerprint) -> None:
    """Compares what was read of a file with what was written.

    Raises:
        DamagedCheckpoint: If they differ.
    """
    if found != expected:
        raise DamagedCheckpoint(
            f"The checkpoint is damaged: '{file}' is not what was written (by its SHA-256)."
        )


def check_checkpoint(path: PLACE | Storage) -> dict[str, Any]:
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
