"""Stored policies at URIs, copied to this machine."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

from rllib_odac.deploy.files import ARRAYS, CHECKPOINT_MANIFEST, DIRECTORY, SPEC

FILES = (SPEC, ARRAYS, f"{DIRECTORY}/{SPEC}", f"{DIRECTORY}/{ARRAYS}", CHECKPOINT_MANIFEST)


def policy_here(path: str | os.PathLike[str]) -> Path:
    """A checkpoint, run or exported file as one of this machine, which it may be already.

    From elsewhere what a policy needs is downloaded, into a directory that goes with this process;
    that needs PyArrow.

    Raises:
        ValueError: If the URI cannot be understood, or what it names cannot be read.
    """
    if "://" not in os.fspath(path):
        return Path(path)
    from rllib_odac.storage import Storage

    place = Storage.of(path)
    target = Path(tempfile.mkdtemp(prefix="odac-"))
    atexit.register(shutil.rmtree, target, ignore_errors=True)
    try:
        if place.size is not None:
            place.download(target / place.name)
            return target / place.name
        checkpoints = [f"checkpoints/{name}/" for name in (place / "checkpoints").names()]
        for directory in ("", *checkpoints, "checkpoint_final/"):
            for name in FILES:
                if (file := place / f"{directory}{name}").size is not None:
                    file.download(target / f"{directory}{name}")
    except OSError as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ValueError(f"'{place}' cannot be read: {reason}.") from None
    if not any(target.iterdir()):
        raise ValueError(f"There is no checkpoint, run or exported policy '{place}'.")
    return target
