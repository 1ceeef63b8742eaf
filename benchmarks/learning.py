"""The full learning results: every task with several seeds, through the command line.

    python benchmarks/learning.py                       # everything, about 15 minutes on two cores
    python benchmarks/learning.py --task fetch_reach --seeds 0 1 2

Each run is one `odac train` in a process of its own. All progress rows of a task go to
`results/learning_TASK.csv`, the last row of each run with its command and machine to
`results/learning.csv`, the curves to `results/learning_TASK.png`. Runs that are there already are
not made again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib
import pandas as pd

matplotlib.use("Agg")
from matplotlib import pyplot as plt

RESULTS = Path(__file__).parent / "results"
TASKS = {
    "fetch_reach": ["FetchReach-v4", "--steps", "6000", "--evaluate-every", "500"],
    "box2d": [
        *("odac/Box2D-v0", "--steps", "60000", "--evaluate-every", "5000"),
        *("--set", "updates_per_env_step=0.2"),
    ],
}
UNITS = {"fetch_reach": "m", "box2d": "units of length"}


def run(task: str, seed: int) -> None:
    """Trains once and adds the rows to the results."""
    rows_file, summary_file = RESULTS / f"learning_{task}.csv", RESULTS / "learning.csv"
    arguments = ["train", *TASKS[task], "--seed", str(seed)]
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory) / "run"
        command = [sys.executable, "-m", "rllib_odac.cli", *arguments, "--out", str(out)]
        subprocess.run(command, check=True)
        progress = pd.read_csv(out / "progress.csv")
        summary = json.loads((out / "summary.json").read_text())
    progress.insert(0, "seed", seed)
    _append(rows_file, progress)
    row = {
        "task": task,
        "seed": seed,
        **{
            name: summary[name]
            for name in (
                *("env_steps", "updates", "wall_s", "success_rate", "final_distance"),
                *("normalized_distance", "evaluation_episodes"),
            )
        },
        "steps_to_95": _steps_to(progress, 0.95),
        "command": shlex.join(["odac", *arguments]),
        "cores": os.cpu_count(),
        "cpu": _cpu(),
        **{name: summary["versions"][name] for name in ("ray", "torch", "python")},
    }
    _append(summary_file, pd.DataFrame([row]))
    plot(task)


def plot(task: str) -> None:
    """Draws success and distance of every seed over environment steps."""
    rows = pd.read_csv(RESULTS / f"learning_{task}.csv")
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for seed, part in rows.groupby("seed"):
        axes[0].plot(
            part["env_steps"], 100 * part["success_rate"], marker=".", label=f"seed {seed}"
        )
        axes[1].plot(part["env_steps"], part["final_distance"], marker=".")
    axes[0].axhline(95, color="0.6", linestyle=":")
    axes[0].set(ylabel="success on held-out goals (%)", ylim=(-3, 103))
    axes[0].legend()
    axes[1].set(ylabel=f"final distance ({UNITS[task]})", yscale="log")
    for ax in axes:
        ax.set_xlabel("environment steps")
        ax.grid(alpha=0.3)
    figure.suptitle(f"ODAC on {TASKS[task][0]}")
    figure.savefig(RESULTS / f"learning_{task}.png", dpi=120)
    plt.close(figure)


def _append(path: Path, rows: pd.DataFrame) -> None:
    rows.to_csv(path, mode="a", header=not path.exists(), index=False)


def _steps_to(progress: pd.DataFrame, success: float) -> int | None:
    reached = progress[progress["success_rate"] >= success]
    return int(reached["env_steps"].iloc[0]) if len(reached) else None


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()


def main() -> None:
    """Makes the runs that are missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=list(TASKS), nargs="*", default=list(TASKS))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    arguments = parser.parse_args()
    summary = RESULTS / "learning.csv"
    for task in arguments.task:
        for seed in arguments.seeds:
            done = (
                pd.read_csv(summary) if summary.exists() else pd.DataFrame({"task": [], "seed": []})
            )
            if ((done["task"] == task) & (done["seed"] == seed)).any():
                continue
            print(f"{task}, seed {seed}", flush=True)
            run(task, seed)


if __name__ == "__main__":
    main()
