"""Whether ending an episode at its goal changes how fast a task is learned.

    python benchmarks/ending_on_success.py

Fetch Reach with ODAC's default settings, and the same task with an end at the first success. A
terminal state is absorbing, so both should be learned alike.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import pandas as pd
import torch

from rllib_odac import Run, RunSpec, make_env

TASKS = {"goes on": "FetchReach-v4", "ends on success": "EndsOnSuccess/FetchReach-v0"}


class EndsOnSuccess(gym.Wrapper[Any, Any, Any, Any]):
    """Ends an episode at its first success."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, _, truncated, info = self.env.step(action)
        return observation, reward, bool(info["is_success"]), truncated, info


def make(**kwargs: Any) -> gym.Env[Any, Any]:
    """Fetch Reach that ends on success."""
    return EndsOnSuccess(make_env("FetchReach-v4", **kwargs))


def main() -> None:
    """Trains, writes the evaluations of every run and prints when each holds its goals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--objectives", nargs="+", default=["odac"])
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).with_name("results") / "ending_on_success.csv"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    gym.register(TASKS["ends on success"], entry_point=make, max_episode_steps=50)
    tables = []
    for objective in options.objectives:
        for seed in range(options.seeds):
            for task, env in TASKS.items():
                spec = RunSpec(
                    env=env,
                    objective=objective,
                    seed=seed,
                    steps=options.steps,
                    evaluate_every=500,
                    evaluation_episodes=100,
                )
                with tempfile.TemporaryDirectory() as folder:
                    Run(spec, Path(folder) / "run").train()
                    rows = pd.read_csv(Path(folder) / "run" / "progress.csv")
                columns = ["env_steps", "updates", "wall_s", "success_rate", "final_distance"]
                labels = {"objective": objective, "task": task, "seed": seed}
                tables.append(rows[columns].assign(**labels))
    table = pd.concat(tables, ignore_index=True)
    command = f"python benchmarks/ending_on_success.py --seeds {options.seeds}"
    table = table.assign(machine=f"{platform.machine()}, {os.cpu_count()} cores", command=command)
    table.to_csv(options.output, index=False)
    reached = table[table["success_rate"] >= 0.95]
    first = reached.groupby(["objective", "task", "seed"])["env_steps"].min().unstack()
    last = table.groupby(["objective", "task", "seed"])["success_rate"].last().unstack()
    print(f"steps to 95 %:\n{first}\n\nsuccess at the end:\n{last}")


if __name__ == "__main__":
    main()
