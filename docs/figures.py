"""Charts and tables of README.md and the documentation, drawn from committed rows.

    python docs/figures.py

A table stands between the comments `<!-- table: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pandas as pd

from rllib_odac.evaluation.compare import Comparison, read_studies
from rllib_odac.evaluation.comparison_files import format_comparison
from rllib_odac.evaluation.comparison_picture import plot_comparison

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = ("README.md", "docs/results.md", "docs/architecture.md", "docs/performance.md")
# Of each chart: the results that it shows, and the column of progress that its curves do.
CHARTS = {
    "paper_comparison": ("paper_comparison", "success_rate"),
    "paper_ablation": ("paper_ablation", "success_rate"),
    "uniform_tail": ("version_0_1/uniform_tail", "unreached_value"),
}
TASKS = {
    "box2d": "Box 2D",
    "fetch_reach": "Fetch Reach",
    "fetch_push": "Fetch Push",
    "sawyer_window": "Sawyer Window",
    "sawyer_faucet": "Sawyer Faucet",
    "sawyer_push": "Sawyer Push",
    "metaworld_push": "Meta-World Push",
    "ant": "Ant",
}
ENVS = {
    "odac/Ant-v0": "Ant",
    "odac/Box2D-v0": "Box 2D",
    "odac/FetchPush-v0": "Fetch Push",
    "odac/SawyerFaucet-v0": "Sawyer Faucet",
}


def comparison(name: str, metric: str = "success_rate", curve: str = "success_rate") -> Comparison:
    """The comparison of one directory of results."""
    return Comparison(read_studies([RESULTS / name]), metric, curve=curve)


def success_table(name: str) -> str:
    """Success in percent, a row for each task and a column for each method."""
    shown = comparison(name)
    runs = json.loads((RESULTS / name / "study.json").read_text())["runs"]
    steps = {run["task"]: run["spec"]["steps"] for run in runs}
    cells = {
        (row["task"], row["method"]): _cell(row["mean"], row["std"], row["seeds"])
        for row in shown.tasks.to_dict("records")
    }
    lines = [["task", "steps", *map(shown.label, shown.method_names)]]
    lines += [
        [TASKS[task], f"{steps[task]:,}"]
        + [cells.get((task, method), "–") for method in shown.method_names]
        for task in shown.task_names
    ]
    return _markdown(lines)


def task_table(name: str, metric: str = "success_rate") -> str:
    """The table of tasks of `odac compare`."""
    return format_comparison(comparison(name, metric), "markdown").split("\n\n")[1]


def feeding_table() -> str:
    """Env runners that feed a learner, a row for each task and pace and a column for each ratio."""
    rows = pd.read_csv(RESULTS / "scaling" / "feeding.csv")
    ratios = rows["updates_per_env_step"].unique()
    lines = [["task", "updates/s assumed", *(f"at {ratio:g} a step" for ratio in ratios)]]
    for (env_id, rate), group in rows.groupby(["env", "assumed_updates_per_s"], sort=False):
        cells = [f"{row.num_env_runners} + {row.evaluators}" for row in group.itertuples()]
        lines.append([ENVS[env_id], f"{rate:,}", *cells])
    return _markdown(lines)


def tables() -> dict[str, str]:
    """Every table, by the name that its comment has."""
    return {
        "success": success_table("paper_comparison"),
        "comparison": task_table("paper_comparison"),
        "ablation": task_table("paper_ablation"),
        "distance of the ablation": task_table("paper_ablation", "normalized_distance"),
        "comparison of version 0.1": task_table("version_0_1/paper_comparison"),
        "feeding": feeding_table(),
    }


def with_tables(text: str) -> str:
    """A page with its tables as the rows have them."""
    found = tables()

    def fill(match: re.Match[str]) -> str:
        return f"{match[1]}\n{found[match[2]]}\n{match[3]}"

    return re.sub(r"(<!-- table: (.+?) -->)\n.*?(<!-- end -->)", fill, text, flags=re.DOTALL)


def draw(directory: Path) -> list[Path]:
    """Draws every chart into a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, (results, curve) in CHARTS.items():
        plot_comparison(comparison(results, curve=curve), directory / f"{name}.png")
    return [directory / f"{name}.png" for name in CHARTS]


def main() -> None:
    """Writes charts and tables to where they belong."""
    for path in draw(ROOT / "docs" / "images"):
        print(path, file=sys.stderr)
    for page in PAGES:
        path = ROOT / page
        path.write_text(with_tables(path.read_text()))


def _cell(mean: float, std: float, seeds: int) -> str:
    spread = f" ± {100 * std:.0f}" if seeds > 1 else ""
    return f"{100 * mean:.0f}{spread} ({seeds})"


def _markdown(lines: list[list[str]]) -> str:
    header, *rest = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([header, "|" + "---|" * len(lines[0]), *rest])


if __name__ == "__main__":
    main()
