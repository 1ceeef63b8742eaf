"""OGBench (Park et al. 2024, arXiv 2410.20092): data made here, its protocol, our learners.

    python benchmarks/ogbench_suite.py --task pointmaze-large-navigate pointmaze-medium-stitch
    python benchmarks/ogbench_suite.py --method odac gciql --updates 7500 --every 1500

Each evaluation is so many episodes of each of an environment's five tasks, with deterministic
actions; a row holds the mean over the last three evaluations, as OGBench reports it (there of 50
episodes each). Settings were chosen with seed 0, and near goals with seed 1 of the larger maze.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd
from ogbench_data import make_data

from rllib_odac.envs.ogbench import PLACES
from rllib_odac.experiments.run import Run
from rllib_odac.experiments.spec import RunSpec
from rllib_odac.runtime.cluster import join_or_start

RESULTS = Path(__file__).parent / "results" / "ogbench.csv"
TASKS, EVALUATIONS = 5, 3
COMMON: dict[str, Any] = {
    "replay_capacity": 1_100_000,
    "num_envs_per_env_runner": 25,
    "layer_norm": "critics",
}
WALKING = COMMON | {
    "hidden": [128, 128],
    "fourier_features": 96,
    "values": "returns",
    "extraction": "advantage",
    "target_steps": 25,  # about as many as a cell of the maze takes
    "kl_weight": 0.03,
    "num_critics": 1,
    # A step costs −log p0 nats wherever the goal is, and the longest way about ten.
    "prior_discount": 0.98,
    "max_discount": None,
    "goal_scale": 5.0,  # about a cell
    "dynamics_min_scale": 0.02,
    "relabel": {"next": 0.2, "discounted": 0.25, "future": 0.2, "random": 0.15, "near": 0.2},
    "tau": 0.01,
}
CLIMBING = COMMON | {  # what Q(s, a, g) says of actions, near those of the data
    "lr": 3e-4,
    "target_steps": 10,
    "prior_discount": 0.995,
    "tau": 0.01,
}
METHODS: dict[str, dict[str, Any]] = {  # by scene
    "odac": {"pointmaze": WALKING, "cube": CLIMBING},
    "gciql": {"pointmaze": CLIMBING, "cube": CLIMBING},
}


def train(task: str, method: str, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """One run, which goes on where it stopped, and its row."""
    environment, _, _ = task.rpartition("-")
    scene, _, _ = task.partition("-")
    data = given.data / f"{task}.npz"
    if not data.exists():
        make_data(task, data)
    falling = {"lr": [[0, 1e-3], [given.updates, 1e-4]]}
    settings = falling | METHODS[method][scene] | given.settings
    settings |= {"data": str(data), "data_goal": PLACES[environment][0], "offline": True}
    spec = RunSpec(
        env=f"rllib_odac.envs.ogbench:ogbench/{environment}-v0",
        objective=method,
        steps=given.updates,
        seed=seed,
        settings=settings,
        evaluate_every=given.every,
        evaluation_episodes=TASKS * given.episodes,
        final_episodes=TASKS * given.episodes,
        checkpoint_every=given.every,
    )
    label = f"{method}{given.label}"
    run = Run(spec, given.runs / f"{task}-{label}-{seed}", resume=True, on_row=_show)
    run.train()
    progress = pd.read_csv(Path(run.out.path) / "progress.csv")
    last = progress.tail(EVALUATIONS)
    return {
        "task": task,
        "method": label,
        "seed": seed,
        "success_rate": round(float(last["success_rate"].mean()), 4),
        "best": float(progress["success_rate"].max()),
        "updates": int(progress["updates"].iloc[-1]),
        "batch": settings.get("train_batch_size_per_learner", 256),
        "hidden": "x".join(map(str, settings.get("hidden", [256, 256]))),
        "episodes": TASKS * given.episodes,
        "train_s": float(progress["wall_s"].iloc[-1]),
        "settings": json.dumps(settings | {"data": data.name}, sort_keys=True),
    }


def _show(row: Any) -> None:
    print({n: row.get(n) for n in ("updates", "success_rate", "final_distance", "wall_s", "q_value",
          "policy_kl", "discount", "critic_loss")}, flush=True)  # fmt: skip


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", nargs="+", default=["pointmaze-medium-navigate"])
    parser.add_argument("--method", nargs="+", choices=METHODS, default=["odac"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--updates", type=int, default=20_000)
    parser.add_argument("--every", type=int, default=4_000, help="updates between evaluations")
    parser.add_argument("--episodes", type=int, default=20, help="of each task an evaluation")
    parser.add_argument("--settings", type=json.loads, default={}, help="further ones, as JSON")
    parser.add_argument("--label", default="", help="after the method's name, for a trial")
    parser.add_argument("--data", type=Path, default=Path("runs/ogbench_data"))
    parser.add_argument("--runs", type=Path, default=Path("runs/ogbench"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    join_or_start("local", num_cpus=2)
    for task in given.task:
        for method in given.method:
            for seed in given.seeds:
                row = train(task, method, seed, given)
                rows = pd.read_csv(given.out).to_dict("records") if given.out.exists() else []
                key = ("task", "method", "seed")
                kept = [old for old in rows if any(old[name] != row[name] for name in key)]
                pd.DataFrame([*kept, row]).to_csv(given.out, index=False)
                print(row)


if __name__ == "__main__":
    main()
