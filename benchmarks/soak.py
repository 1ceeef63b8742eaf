"""Training for as long as one likes: memory, files, processes and objects that must not pile up.

    python benchmarks/soak.py --minutes 120

A whole `ODAC` with remote env runners, a remote learner and an env runner that evaluates beside
them, small networks and a small replay that is soon full. It is evaluated in every iteration and
saved in every tenth over one and the same directory, and every few minutes one of its env runners
gets SIGKILL. Every few seconds, of each process that this one has started, Ray's own included:

- `memory_mb`: resident memory without pages of the shared object store,
- `file_descriptors`, `threads`.

And of all together the number of `processes`, and `object_store_mb`: what the shared store has
ever needed at once. Judged are the samples from two minutes (or a tenth of the time) after the
replay was full: `growth` is the median of the last quarter, of a process of its kind, over that of
the first, less 1. In the end nothing may be left of processes or shared memory.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import logging
import os
import random
import re
import shlex
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import ray
import torch

from rllib_odac import ODACConfig
from rllib_odac.algorithm import ODAC
from rllib_odac.runtime.cluster import join_or_start

CAPACITY = 10_000  # states in the replay
ITERATIONS_A_CHECKPOINT = 10
MOST_GROWTH = 0.02
TITLES = {"ray::GoalEnvRunner": "env runner", "ray::_WrappedExecutable": "learner"}
OURS = ("driver", *TITLES.values())  # the processes that train
PROGRESS = ("env_steps", "updates", "kills")
SHARED_MEMORY = Path("/dev/shm")
Row = dict[str, Any]


def build(options: argparse.Namespace) -> ODAC:
    config = ODACConfig().environment(options.env).debugging(seed=0, log_level="ERROR")
    config.env_runners(num_env_runners=options.num_env_runners)
    config.learners(num_learners=options.num_learners)
    config.training(hidden=(64, 64), train_batch_size_per_learner=64, replay_capacity=CAPACITY)
    config.training(updates_per_env_step=0.1)
    config.evaluation(evaluation_duration=10, evaluation_num_env_runners=1)
    return config.build_algo()


def name_of(process: psutil.Process) -> str:
    """What a process does, by the title that Ray gives it."""
    if process.pid == os.getpid():
        return "driver"
    title = " ".join(process.cmdline()[:1])
    return next((name for start, name in TITLES.items() if title.startswith(start)), process.name())


def kill_an_env_runner(rng: random.Random) -> None:
    """Kills one of those that collect or evaluate, if one runs."""
    children = psutil.Process().children(recursive=True)
    runners = []
    for child in children:
        with contextlib.suppress(psutil.Error):  # it has just ended
            runners += [child] if name_of(child) == "env runner" else []
    if runners:
        rng.choice(runners).kill()


def memory_mb(pid: int) -> tuple[float, float]:
    """Resident memory of its own, and resident pages of the shared object store."""
    status = Path(f"/proc/{pid}/status").read_text()
    kilobytes = {name: int(size) for name, size in re.findall(r"(Rss\w+):\s+(\d+) kB", status)}
    return (kilobytes["RssAnon"] + kilobytes["RssFile"]) / 1024, kilobytes["RssShmem"] / 1024


def sample() -> list[Row]:
    """One row a process, and one of what all share."""
    rows: list[Row] = []
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            own, shared = memory_mb(process.pid)
            row = {
                "process": name_of(process),
                "pid": process.pid,
                "memory_mb": own,
                "object_store_mb": shared,
                "file_descriptors": process.num_fds(),
                "threads": process.num_threads(),
            }
        except (psutil.Error, OSError, KeyError):
            continue  # it has just ended
        rows.append(row)
    everything = {
        "process": "all",
        "processes": len(rows),
        "memory_mb": sum(row["memory_mb"] for row in rows),
        "object_store_mb": max(row["object_store_mb"] for row in rows),  # Ray's own maps all of it
        "file_descriptors": sum(row["file_descriptors"] for row in rows),
        "threads": sum(row["threads"] for row in rows),
    }
    return [*rows, everything]


def soak(options: argparse.Namespace, out: Path) -> tuple[pd.DataFrame, float]:
    """All samples, and the second in which the replay was full."""
    algorithm = build(options)
    rows: list[Row] = []
    rng, kills = random.Random(0), 0
    full_s, start, taken = float("inf"), time.perf_counter(), 0.0
    with tempfile.TemporaryDirectory() as directory:
        while (now := time.perf_counter() - start) < 60 * options.minutes:
            result = algorithm.train()
            if algorithm.iteration % ITERATIONS_A_CHECKPOINT == 0:
                algorithm.save_to_path(f"{directory}/checkpoint")
            size = result["learners"]["__all_modules__"]["replay_transitions"]
            # States of an episode that is being overwritten do not count as transitions.
            if size > 0.9 * CAPACITY and full_s > now:
                full_s = now
            if now >= 60 * options.kill_every * (kills + 1):
                kill_an_env_runner(rng)
                kills += 1
            if now - taken >= options.every:
                taken = now
                about = {
                    "second": round(now, 1),
                    "env_steps": algorithm.env_steps,
                    "updates": algorithm.updates,
                    "kills": kills,
                }
                rows += [about | row for row in sample()]
                pd.DataFrame(rows).round(3).to_csv(out, index=False)
        algorithm.stop()
    return pd.DataFrame(rows).round(3), full_s


def judge(table: pd.DataFrame, full_s: float, seconds: float) -> dict[str, Any]:
    """Growth of memory and of counts, from the time when the replay was full."""
    begin = full_s + min(120.0, seconds / 10)
    late = table[table["second"] >= begin]
    growths: dict[str, Any] = {}
    for name in (*OURS, "all"):
        part = late[late["process"] == name]
        by_time = part.drop(columns=["process", "pid"]).groupby("second").mean()
        quarter = max(1, len(by_time) // 4)
        first, last = by_time.iloc[:quarter].median(), by_time.iloc[-quarter:].median()
        columns = [
            c for c in by_time if c not in ("env_steps", "updates", "kills") and last[c] == last[c]
        ]
        growths[name] = {
            column: {
                "first": round(first[column], 2),
                "last": round(last[column], 2),
                "growth": round(last[column] / first[column] - 1, 4) if first[column] else None,
            }
            for column in columns
        }
    memory = {name: growths[name]["memory_mb"]["growth"] for name in growths}
    return {
        "full_after_s": round(full_s, 1),
        "judged_from_s": round(begin, 1),
        "env_steps": int(table["env_steps"].max()),
        "updates": int(table["updates"].max()),
        "kills": int(table["kills"].max()),
        "memory_growth": memory,
        "is_flat": all(growth < MOST_GROWTH for growth in memory.values()),
        "figures": growths,
    }


def left_behind(started: set[psutil.Process], shared: set[str]) -> dict[str, list[str]]:
    """What of this process's children and its shared memory is still there."""
    _, alive = psutil.wait_procs(started, timeout=20)
    names = {path.name for path in SHARED_MEMORY.iterdir()} if SHARED_MEMORY.is_dir() else set()
    mine = sorted(name for name in names - shared if name.startswith("plasma"))
    return {"processes": [process.name() for process in alive], "shared_memory": mine}


def main() -> None:
    parser = argparse.ArgumentParser(description="Watches what a long training piles up.")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--every", type=float, default=10, help="seconds between two samples")
    parser.add_argument("--kill-every", type=float, default=5, help="minutes between two kills")
    parser.add_argument("--env", default="FetchReach-v4")
    parser.add_argument("--num-env-runners", type=int, default=1)
    parser.add_argument("--num-learners", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("results"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    options.output.mkdir(parents=True, exist_ok=True)
    shared = {path.name for path in SHARED_MEMORY.iterdir()} if SHARED_MEMORY.is_dir() else set()
    places = options.num_env_runners + options.num_learners + 1  # one evaluates
    join_or_start("local", num_cpus=places, log_to_driver=False)
    table, full_s = soak(options, options.output / "soak.csv")
    started = set(psutil.Process().children(recursive=True))
    ray.shutdown()
    cpu = re.findall("model name.*: (.*)", Path("/proc/cpuinfo").read_text())[0]
    report = {
        "command": shlex.join(["python", *sys.argv]),
        "date": f"{datetime.datetime.now():%Y-%m-%d %H:%M}",
        "machine": {"cpu": cpu, "cores": len(os.sched_getaffinity(0))},
        "versions": {package: version(package) for package in ("torch", "ray")},
        "env": options.env,
        "left_behind": left_behind(started, shared),
    } | judge(table, full_s, 60 * options.minutes)
    (options.output / "soak.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))
    sys.exit(0 if report["is_flat"] and not any(report["left_behind"].values()) else 1)


if __name__ == "__main__":
    main()
