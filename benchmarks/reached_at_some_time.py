"""How often runs have reached a goal at some time of an episode, and how often at its end.

    python benchmarks/reached_at_some_time.py RUN [RUN ...]

Held-out goals, deterministic actions. "Reached" is the environment's own success distance, and
episodes that begin within it are left out. Under the paper's objective the goal is to come about at
an unknown time, so that passing it counts as much as staying there; success is judged at the end.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from rllib_odac.evaluation.checkpoint import CheckpointPolicy
from rllib_odac.runtime.evaluator import held_out_seeds


def row(run: Path, episodes: int) -> dict[str, object]:
    """Shares of one run's episodes."""
    policy = CheckpointPolicy(run)
    followed = [policy.follow(seed).distances for seed in held_out_seeds(episodes)]
    distances = np.array(followed)  # (episodes, T + 1)
    reached = distances < policy.config.judged_goals.success_distance
    counted = ~reached[:, 0]
    return {
        "run": run.name,
        "env": str(policy.config.env),
        "episodes": int(counted.sum()),
        "reached_at_some_time": round(float(reached[counted].any(1).mean()), 3),
        "reached_at_the_end": round(float(reached[counted, -1].mean()), 3),
        "nearest": round(float(np.median(distances[counted].min(1))), 4),
        "last": round(float(np.median(distances[counted, -1])), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Goals reached at some time, and at the end.")
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("results"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = pd.DataFrame([row(run, options.episodes) for run in options.runs])
    options.output.mkdir(parents=True, exist_ok=True)
    table.to_csv(options.output / "reached_at_some_time.csv", index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
