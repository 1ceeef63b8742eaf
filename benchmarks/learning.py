"""The full learning results: every tuned task with several seeds, through the command line.

    python benchmarks/learning.py                       # everything, hours on two cores
    python benchmarks/learning.py --task fetch_push sawyer_window --method odac her --jobs 2

Each run is one `odac train --config tune_configs/TASK.json` in a process of its own, in a directory
of its own below `--runs`, where an interrupted one goes on. All progress rows of a task go to
`results/learning_TASK.csv`, the last row of each run with its command and machine to
`results/learning.csv`, the curves to `results/learning_TASK.png`. Runs whose rows are there already
are not made again; `--missing` lists what is not there yet.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib
import pandas as pd

matplotlib.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
SUMMARY = RESULTS / "learning.csv"
CONFIGS = ROOT / "tune_configs"
TASKS = sorted(path.stem for path in CONFIGS.glob("*.json"))
FIGURES = (
    *("env_steps", "updates", "wall_s", "success_rate", "final_distance"),
    *("normalized_distance", "evaluation_episodes"),
)
METHODS = {
    "odac": [],
    # The best known weight for it; its reward of −1 a step leaves no room for dawdling.
    "her": ["--objective", "her", "--set", "kl_weight=0.05"],
    "no_tail": ["--set", "dynamics_background=0"],  # the plain Laplace log-likelihood
    "no_limit": ["--set", "max_discount=None"],  # the optimal q_Δ(0), however near to one
}
LABELS = {
    "odac": ("ODAC", "#0072b2", "-"),  # told apart without colour too
    "her": ("HER", "#d55e00", "--"),
    "no_tail": ("ODAC, no uniform tail", "#009e73", ":"),
    "no_limit": ("ODAC, no limit on q_Δ(0)", "#cc79a7", "-."),
}
_writing = threading.Lock()


def run(task: str, method: str, seed: int, runs: Path) -> None:
    """Trains once, or as far as is missing, and adds the rows to the results."""
    config = (CONFIGS / f"{task}.json").relative_to(ROOT)
    arguments = ["train", "--config", str(config), *METHODS[method], "--seed", str(seed)]
    out = (runs / f"{task}-{method}-{seed}").absolute()
    command = [sys.executable, "-m", "rllib_odac.cli", *arguments, "--out", str(out), "--resume"]
    out.parent.mkdir(parents=True, exist_ok=True)
    print(f"{task}, {method}, seed {seed}: {out}.log", flush=True)
    with open(f"{out}.log", "a") as log:
        subprocess.run(command, check=True, cwd=ROOT, stdout=log, stderr=log)
    progress = pd.read_csv(out / "progress.csv")
    summary = json.loads((out / "summary.json").read_text())
    row = {
        **{"task": task, "method": method, "seed": seed},
        **{name: summary[name] for name in FIGURES},
        "steps_to_90": _steps_to(progress, 0.90),
        "command": shlex.join(["odac", *arguments]),
        "cores": os.cpu_count(),
        "cpu": _cpu(),
        **{name: summary["versions"][name] for name in ("ray", "torch", "python")},
    }
    progress.insert(0, "method", method)
    progress.insert(1, "seed", seed)
    with _writing:
        _append(RESULTS / f"learning_{task}.csv", progress)
        _append(SUMMARY, pd.DataFrame([row]))
        plot(task)


def plot(task: str) -> None:
    """Draws success and distance of every run of a task over environment steps."""
    rows = pd.read_csv(RESULTS / f"learning_{task}.csv")
    config = json.loads((CONFIGS / f"{task}.json").read_text())
    panels = {
        "success_rate": "success on held-out goals (%)",
        "normalized_distance": "final distance (% of the initial one)",
        "unreached_value": "value of goals not reached yet (nats)",
    }
    panels = {name: text for name, text in panels.items() if rows[name].notna().any()}
    size = (4.3 * len(panels), 3.6)
    figure, axes = plt.subplots(1, len(panels), figsize=size, layout="constrained")
    for method, part in rows.groupby("method"):
        label, color, line = LABELS[method]
        seeds = part["seed"].nunique()
        text = f"{label}, {seeds} seed{'s' if seeds > 1 else ''}"
        for ax, name in zip(axes, panels, strict=True):
            if name == "unreached_value" and method == "her":
                continue  # counted in steps to the goal, not in nats
            factor = 100 if name == "success_rate" else 1
            for _, run in part.groupby("seed"):
                ax.plot(run["env_steps"] / 1000, factor * run[name], color=color, lw=0.8, alpha=0.4)
            mean = part.groupby("env_steps")[name].mean()
            ax.plot(mean.index / 1000, factor * mean, line, color=color, lw=2, label=text)
    for ax, text in zip(axes, panels.values(), strict=True):
        ax.set(xlabel="environment steps (thousands)", ylabel=text)
        ax.grid(alpha=0.3)
    axes[0].axhline(90, color="0.6", lw=1)
    axes[0].set_ylim(-3, 103)
    axes[0].legend(fontsize="small", loc="best")
    axes[1].set_ylim(0, min(200, axes[1].get_ylim()[1]))
    if rows.get("unreached_value", pd.Series(dtype=float)).min() < -50:
        axes[2].set_yscale("symlog", linthresh=10)
    figure.suptitle(config["env"])
    figure.savefig(RESULTS / f"learning_{task}.png", dpi=110)
    plt.close(figure)


def table() -> str:
    """The results as a Markdown table: a row for each task and method."""
    rows = pd.read_csv(SUMMARY)
    lines = [
        "| task | method | seeds | environment steps | steps to 90 % | success at the end "
        "| final distance | % of the initial one |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (task, method), part in rows.groupby(["task", "method"]):
        env = json.loads((CONFIGS / f"{task}.json").read_text())["env"]
        first = [f"{steps / 1000:g}k" for steps in part["steps_to_90"].dropna()]
        first += ["–"] * int(part["steps_to_90"].isna().sum())
        cells = [
            env,
            LABELS[method][0],
            str(len(part)),
            f"{part['env_steps'].max() / 1000:.0f}k",
            ", ".join(first),
            ", ".join(f"{100 * success:.0f} %" for success in part["success_rate"]),
            ", ".join(f"{distance:.2g}" for distance in part["final_distance"]),
            ", ".join(f"{distance:.2g}" for distance in part["normalized_distance"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def missing(tasks: list[str], methods: list[str], seeds: list[int]) -> list[tuple]:
    """The runs whose rows are not in the results yet."""
    done = set()
    if SUMMARY.exists():
        rows = pd.read_csv(SUMMARY)
        done = set(zip(rows["task"], rows["method"], rows["seed"], strict=True))
    wanted = [(task, method, seed) for task in tasks for seed in seeds for method in methods]
    return [run for run in wanted if run not in done]


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
    parser.add_argument("--task", choices=TASKS, nargs="*", default=TASKS)
    parser.add_argument("--method", choices=list(METHODS), nargs="*", default=["odac"])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, one core each")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "learning")
    parser.add_argument("--table", action="store_true", help="only print the results so far")
    parser.add_argument("--missing", action="store_true", help="only list what is missing")
    arguments = parser.parse_args()
    if arguments.table:
        print(table())
        return
    todo = missing(arguments.task, arguments.method, arguments.seeds)
    if arguments.missing:
        print("\n".join(f"{task} {method} {seed}" for task, method, seed in todo))
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for result in [pool.submit(run, *one, arguments.runs) for one in todo]:
            result.result()


if __name__ == "__main__":
    main()
