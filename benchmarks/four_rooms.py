"""How many of all pairs of start and goal the four rooms' policy connects, as it learns.

    python benchmarks/four_rooms.py

The tuned settings, and the same with hindsight goals from episodes alone. The environment is
deterministic, so every pair is followed to its end. Seconds are those of training, on one thread.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from rllib_odac import ODACConfig, load_policy
from rllib_odac.envs.grid_world import MOVES, GridWorldEnv
from rllib_odac.runtime.cluster import join_or_start
from rllib_odac.tuned import tuned_fields

ENV = "odac/GridWorld-v0"
TUNED = tuned_fields(ENV)
RELABEL = {"tuned": TUNED["settings"]["relabel"], "hindsight from episodes alone": "auto"}
HORIZON = 50


def connected(policy: Any) -> float:
    """The share of pairs whose goal the policy is at after an episode."""
    env = GridWorldEnv()
    cells = np.argwhere(env.is_free)
    number = {tuple(cell): index for index, cell in enumerate(cells)}
    following = [
        [number.get(tuple(cell + move), i) for move in MOVES] for i, cell in enumerate(cells)
    ]
    start, goal = (pair.ravel() for pair in np.indices((len(cells), len(cells))))
    places = cells.astype(np.float32)
    actions = policy(
        {
            "observation": np.eye(len(cells), dtype=np.float32)[start],
            "achieved_goal": places[start],
            "desired_goal": places[goal],
        }
    ).reshape(len(cells), len(cells))
    at = start
    for _ in range(HORIZON):
        at = np.array(following)[at, actions[at, goal]]
    return float((at == goal).mean())


def train(task: str, seed: int) -> list[dict[str, Any]]:
    """A row every 2,000 steps."""
    config = (
        ODACConfig().environment(ENV).training(**TUNED["settings"] | {"relabel": RELABEL[task]})
    )
    config.debugging(seed=seed, log_level="ERROR").evaluation(evaluation_interval=None)
    algorithm = config.build_algo()
    rows: list[dict[str, Any]] = []
    seconds = 0.0
    while algorithm.env_steps < TUNED["steps"]:
        start = time.perf_counter()
        algorithm.train()
        seconds += time.perf_counter() - start
        if algorithm.env_steps % 2000 == 0:
            with tempfile.TemporaryDirectory() as checkpoint:
                algorithm.save_to_path(checkpoint)
                share = connected(load_policy(checkpoint))
            made = {"env_steps": algorithm.env_steps, "updates": algorithm.updates}
            rows.append({"task": task, "seed": seed} | made)
            rows[-1] |= {"train_s": round(seconds, 1), "success_rate": round(share, 4)}
            print(rows[-1], flush=True)
    algorithm.stop()
    return rows


def main() -> None:
    """Trains with each seed and writes the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", choices=RELABEL, default=list(RELABEL))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    results = Path(__file__).with_name("results")
    parser.add_argument("--output", type=Path, default=results / "four_rooms.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    join_or_start("local", num_cpus=2, log_to_driver=False)
    rows = [row for task in options.tasks for seed in options.seeds for row in train(task, seed)]
    pd.DataFrame(rows).to_csv(options.output, index=False)


if __name__ == "__main__":
    main()
