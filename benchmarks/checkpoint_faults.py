"""What is left of a checkpoint when its process is killed, or the disk is full, while it is saved.

    python benchmarks/checkpoint_faults.py

Each trial begins with a whole checkpoint of a real run and saves another one, by turns to a new
directory and in the place of the first:

- `kill`: in a forked process, which gets SIGKILL at a seeded moment within the time of a save; one
  that has ended by then does not count, and is tried again.
- `full`: on a small file system of its own (a tmpfs, which only root may mount), with less room
  than the checkpoint needs, by a seeded amount.

Then the first one, or what has taken its place, must be whole by its checksums, and be restored to
the parameters, counters and replay that were saved. Where a save could not end, nothing but that
may lie in the directory, and after a kill a directory `.partial`, which the next save removes.
"""

from __future__ import annotations

import argparse
import datetime
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import ray

from rllib_odac import ODAC, ODACConfig
from rllib_odac.checkpoints.atomic import locate_checkpoint
from rllib_odac.checkpoints.manifest import check_checkpoint
from rllib_odac.storage import Storage

Row = dict[str, Any]


def state(algorithm: ODAC) -> tuple[Any, ...]:
    """What a restored run must have: counters, every parameter and every state in the replay."""
    learner = algorithm.learner_group._learner
    arrays = [value.numpy() for value in learner.networks.state_dict().values()]
    arrays += [episode.observation for episode in learner.replay.episodes()]
    return algorithm.env_steps, algorithm.updates, tuple(array.tobytes() for array in arrays)


def seconds_of_save(algorithm: ODAC, directory: Path) -> float:
    """How long a forked process takes for a whole save."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        if (child := os.fork()) == 0:
            _save_and_end(algorithm, directory / "timed")
        _, status = os.waitpid(child, 0)
        assert status == 0, "a forked process could not save"
        times.append(time.perf_counter() - start)
    shutil.rmtree(directory / "timed")
    return min(times)


def kill(
    algorithm: ODAC, directory: Path, rng: np.random.Generator, replaces: bool, seconds: float
) -> Row:
    """One trial: SIGKILL while a forked process saves; see the module's docstring."""
    first = directory / "first"
    second = first if replaces else directory / "second"
    is_killed = False
    while not is_killed:
        shutil.rmtree(directory, ignore_errors=True)
        algorithm.save_to_path(first)
        expected = state(algorithm)
        delay = rng.uniform(0, seconds)
        if (child := os.fork()) == 0:
            _save_and_end(algorithm, second)
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        is_killed = os.WIFSIGNALED(status)
    left = sorted(path.name for path in directory.iterdir())
    usable = _is_usable(algorithm, first, expected)
    algorithm.save_to_path(second)  # which clears away what the kill has left
    after = sorted(path.name for path in directory.iterdir())
    return {
        "fault": "kill",
        "replaces": replaces,
        "moment": round(delay / seconds, 3),
        "interrupted": is_killed,
        "left": " ".join(left),
        "usable": usable and _is_usable(algorithm, second, expected),
        "clean": set(after) == {"first", second.name},
    }


def full(
    algorithm: ODAC, directory: Path, rng: np.random.Generator, replaces: bool, size: int
) -> Row:
    """One trial on the file system of `directory`: no room; see the module's docstring."""
    first, ballast = directory / "first", directory / "ballast"
    algorithm.save_to_path(first)
    expected = state(algorithm)
    share = rng.uniform(0, 0.98)
    free = shutil.disk_usage(directory).free
    ballast.write_bytes(b"\0" * max(0, free - int(share * size)))
    second = first if replaces else directory / "second"
    error = None
    try:
        algorithm.save_to_path(second)
    except OSError as caught:
        error = caught
    left = sorted(path.name for path in directory.iterdir())
    sentence = "" if error is None else str(error)
    usable = _is_usable(algorithm, first, expected)
    ballast.unlink()
    algorithm.save_to_path(second)
    usable = usable and _is_usable(algorithm, second, expected)
    shutil.rmtree(directory / "second", ignore_errors=True)
    return {
        "fault": "full",
        "replaces": replaces,
        "moment": round(share, 3),
        "interrupted": "No space left" in sentence and "\n" not in sentence,
        "left": " ".join(left),
        "usable": usable,
        "clean": set(left) == {"first", "ballast"},
    }


def _save_and_end(algorithm: ODAC, path: Path) -> None:
    # The connection to Ray is the parent's: killed in the midst of a message, this process would
    # leave it unusable. Nothing that a save puts into the object store is read by anyone here.
    ray.put = lambda value, **_: None
    try:
        algorithm.save_to_path(path)
        os._exit(0)
    finally:
        os._exit(1)


def _is_usable(algorithm: ODAC, path: Path, expected: tuple[Any, ...]) -> bool:
    check_checkpoint(locate_checkpoint(Storage.of(path)).path)
    algorithm.learner_group._learner.replay.clear()
    algorithm.restore_from_path(path)
    return state(algorithm) == expected


@contextmanager
def small_disk(megabytes: int) -> Iterator[Path | None]:
    """A directory on a file system of that size; None where this process may not mount one."""
    with tempfile.TemporaryDirectory() as directory:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", directory]
        if (
            shutil.which("mount") is None
            or subprocess.run(mount, capture_output=True, check=False).returncode
        ):
            yield None
            return
        try:
            yield Path(directory)
        finally:
            subprocess.run(["umount", "--lazy", directory], check=True)


def trials(algorithm: ODAC, count: int, seed: int) -> list[Row]:
    """So many trials of each fault; those of a full disk only where one can be mounted."""
    rng = np.random.default_rng(seed)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name) / "run"
        directory.mkdir()
        seconds = seconds_of_save(algorithm, directory)
        for trial in range(count):
            rows.append(kill(algorithm, directory, rng, bool(trial % 2), seconds))
        first = directory / "first"
        size = sum(path.stat().st_size for path in first.rglob("*"))
    with small_disk(4 * (size // 2**20 + 1)) as disk:
        for trial in range(count if disk is not None else 0):
            rows.append(full(algorithm, disk, rng, bool(trial % 2), size))
    return [{"trial": index, "seed": seed, **row} for index, row in enumerate(rows)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Kills and full disks while checkpoints are saved."
    )
    parser.add_argument("--trials", type=int, default=20, help="of each fault")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("results"))
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    config = ODACConfig().environment("odac/Box2D-v0").debugging(seed=0, log_level="ERROR")
    algorithm = config.evaluation(evaluation_interval=None).build_algo()
    for _ in range(2):
        algorithm.train()
    rows = pd.DataFrame(trials(algorithm, options.trials, options.seed))
    algorithm.stop()
    rows["date"] = f"{datetime.datetime.now():%Y-%m-%d}"
    rows.to_csv(options.output / "checkpoint_faults.csv", index=False)
    print(rows.groupby("fault")[["interrupted", "usable", "clean"]].agg(["sum", "count"]))
    sys.exit(not rows[["usable", "clean"]].all(axis=None))


if __name__ == "__main__":
    main()
