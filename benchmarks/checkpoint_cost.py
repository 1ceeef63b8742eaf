"""What a checkpoint every minute costs, with a replay that is full.

    python benchmarks/checkpoint_cost.py

Fetch Push with a replay of 1,000,000 states, all of them there from the beginning: episodes of
noise, in the sizes of the task's. Training goes on for a minute, by turns with a checkpoint after
it and without; a row each, with its updates and its seconds, those of the checkpoint included. Each
checkpoint replaces the one before. `cost` is one less the median
updates a second with a checkpoint over the median without.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import logging
import os
import re
import shlex
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from rllib_odac import ODAC, ODACConfig
from rllib_odac.learner import ODACTorchLearner
from rllib_odac.replay.episodes import GoalEpisode
from rllib_odac.runtime.cluster import join_or_start

EPISODE = 50  # steps
Row = dict[str, Any]


def fill(learner: ODACTorchLearner, states: int) -> None:
    """Fills a replay with episodes of noise."""
    rng = np.random.default_rng(0)
    observation, goal, action = learner.replay.widths

    def noise(rows: int, size: int) -> np.ndarray:
        return rng.normal(size=(rows, size)).astype(np.float32)

    while learner.replay.num_states + EPISODE + 1 <= states:
        columns = {
            "observation": noise(EPISODE + 1, observation),
            "achieved_goal": noise(EPISODE + 1, goal),
            "desired_goal": noise(EPISODE + 1, goal),
            "actions": np.clip(noise(EPISODE, action), -1, 1),
        }
        learner.replay.add(GoalEpisode(**columns, terminated=False))


def build(options: argparse.Namespace) -> ODAC:
    config = ODACConfig().environment(options.env).debugging(seed=0, log_level="ERROR")
    config.env_runners(num_env_runners=options.num_env_runners)
    config.learners(num_learners=options.num_learners)
    config.training(replay_capacity=options.states).evaluation(evaluation_interval=None)
    algorithm = config.reporting(min_sample_timesteps_per_iteration=100).build_algo()
    algorithm.learner_group.foreach_learner(functools.partial(fill, states=options.states))
    return algorithm


def window(algorithm: ODAC, seconds: float, checkpoint: Path | None) -> Row:
    """Trains for so long, and saves after it."""
    start, updates, steps = time.perf_counter(), algorithm.updates, algorithm.env_steps
    saving = 0.0
    while time.perf_counter() - start < seconds:
        algorithm.train()
    if checkpoint is not None:
        began = time.perf_counter()
        algorithm.save_to_path(checkpoint)
        saving = time.perf_counter() - began
    taken = time.perf_counter() - start
    size = sum(f.stat().st_size for f in checkpoint.rglob("*") if f.is_file()) if checkpoint else 0
    return {
        "checkpoint": checkpoint is not None,
        "seconds": round(taken, 2),
        "checkpoint_s": round(saving, 3),
        "checkpoint_mb": round(size / 1e6, 1),
        "env_steps": algorithm.env_steps - steps,
        "updates": algorithm.updates - updates,
        "updates_per_s": round((algorithm.updates - updates) / taken, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="What a checkpoint every minute costs.")
    parser.add_argument("--env", default="FetchPush-v4")
    parser.add_argument("--states", type=int, default=1_000_000)
    parser.add_argument("--window", type=float, default=60, help="seconds from one to the next")
    parser.add_argument("--repeats", type=int, default=5, help="of each kind")
    parser.add_argument("--num-env-runners", type=int, default=0)
    parser.add_argument("--num-learners", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("results"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    places = max(1, options.num_env_runners + options.num_learners)
    join_or_start("local", num_cpus=places, log_to_driver=False)
    algorithm = build(options)
    window(algorithm, options.window / 4, None)  # to begin learning
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        algorithm.save_to_path(f"{directory}/checkpoint")
        for index in range(2 * options.repeats):
            place = Path(directory) / "checkpoint" if index % 2 else None
            rows.append({"window": index, **window(algorithm, options.window, place)})
            print(rows[-1], flush=True)
    algorithm.stop()
    table = pd.DataFrame(rows)
    without, with_ = (table[table["checkpoint"] == kind] for kind in (False, True))
    cpu = re.findall("model name.*: (.*)", Path("/proc/cpuinfo").read_text())[0]
    report = {
        "command": shlex.join(["python", *sys.argv]),
        "date": f"{datetime.datetime.now():%Y-%m-%d %H:%M}",
        "machine": {"cpu": cpu, "cores": len(os.sched_getaffinity(0))},
        "versions": {package: version(package) for package in ("torch", "ray")},
        "env": options.env,
        "states": options.states,
        "checkpoint_s": float(with_["checkpoint_s"].median()),
        "checkpoint_mb": float(with_["checkpoint_mb"].median()),
        "cost": round(
            1 - float(with_["updates_per_s"].median() / without["updates_per_s"].median()), 4
        ),
    }
    options.output.mkdir(parents=True, exist_ok=True)
    table.to_csv(options.output / "checkpoint_cost.csv", index=False)
    (options.output / "checkpoint_cost.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
