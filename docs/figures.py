"""Charts and tables of README.md and the documentation, drawn from committed rows.

    python docs/figures.py

A table stands between the comments `<!-- table: NAME -->` and `<!-- end -->`. `--pictures` draws
the first moment of each tuned task as well, which needs MuJoCo.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from rllib_odac import make_env
from rllib_odac.evaluation.compare import Comparison, read_studies
from rllib_odac.evaluation.comparison_files import format_comparison
from rllib_odac.evaluation.comparison_picture import plot_comparison
from rllib_odac.tuned import DIRECTORY

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (
    "README.md",
    "docs/results.md",
    "docs/architecture.md",
    "docs/performance.md",
    "docs/tuned.md",
    "docs/works_with.md",
)
# Of each chart: the results that it shows, and the column of progress that its curves do.
CHARTS = {
    "paper_comparison": ("paper_comparison", "success_rate"),
    "paper_ablation": ("paper_ablation", "success_rate"),
    "uniform_tail": ("version_0_1/uniform_tail", "unreached_value"),
}
# Of each tuned task: its name, and the curves of its seeds or the rows of small tasks, if any.
STUDIES = "paper_comparison/curves/{}-odac-*.csv"
OLD_STUDIES = f"version_0_1/{STUDIES}"
OTHERS = "works_with/{}/progress.csv"
TUNED = {
    "fetch_reach": ("Fetch Reach", "swept_fetch_reach/curves/{}-lr-*.csv"),
    "fetch_push": ("Fetch Push", STUDIES),
    "box2d": ("Box 2D", STUDIES),
    "grid_world": ("Four rooms", "four_rooms.csv: tuned"),
    "bit_flip": ("Sixteen bits", "discrete.csv: BitFlip"),
    "panda_push": ("Panda Push", OTHERS),
    "parking": ("Parking", OTHERS),
    "sawyer_window": ("Sawyer Window", STUDIES),
    "sawyer_faucet": ("Sawyer Faucet", STUDIES),
    "sawyer_push": ("Sawyer Push", STUDIES),
    "metaworld_push": ("Meta-World Push", OLD_STUDIES),
    "ant": ("Ant", OLD_STUDIES),
}
PICTURE_WIDTH = 240  # pixels
TASKS = {
    "box2d": "Box 2D",
    "fetch_reach": "Fetch Reach",
    "fetch_push": "Fetch Push",
    "fetch_push_own_goals": "Fetch Push, own goals",
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


def tuned_curves(name: str) -> list[pd.DataFrame]:
    """Progress of each seed of a tuned task; none if none was recorded."""
    source = TUNED[name][1]
    if source is None:
        return []
    file, _, task = source.format(name).partition(": ")
    if not task:
        return [pd.read_csv(path) for path in sorted(RESULTS.glob(file))]
    rows = pd.read_csv(RESULTS / file).rename(columns={"train_s": "wall_s"})
    return [seed for _, seed in rows[rows["task"] == task].groupby("seed")]


def tuned_tasks() -> str:
    """A section for each tuned task."""
    return "\n\n".join(tuned_task(name) for name in TUNED)


def tuned_task(name: str) -> str:
    """A section: pictures, the command, what came of it, and the settings."""
    title, source = TUNED[name]
    fields = json.loads((DIRECTORY / f"{name}.json").read_text())
    settings = [f"`{key}={json.dumps(value)}`" for key, value in fields["settings"].items()]
    parts = [
        f"## {title}",
        f"![The task](images/task_{name}.png)",
        "<!-- not run: it trains -->",
        f"```bash\nodac train {fields['env']}\n```",
    ]
    if curves := tuned_curves(name):
        ends = [100 * curve["success_rate"].dropna().iloc[-1] for curve in curves]
        minutes = [curve["wall_s"].iloc[-1] / 60 for curve in curves]
        parts[2:2] = [f"![Success over steps](images/tuned_{name}.png)"]
        file, _, task = source.format(name).partition(": ")
        parts += [
            f"Success after {curves[0]['env_steps'].max():,} steps: "
            f"{', '.join(f'{end:.0f}' for end in ends)} % "
            f"({f'{len(ends)} seeds' if len(ends) > 1 else 'one seed'}); "
            f"{_range(minutes)} minutes on a busy core. Rows: `benchmarks/results/{file}`"
            + (f", {task}" if task else "")
            + (", of version 0.1." if source == OLD_STUDIES else ".")
        ]
    else:
        parts.append("No training of it has been recorded.")
    parts.append(f"Settings besides the defaults: {', '.join(settings)}.")
    return "\n\n".join(parts).replace("it trains -->\n\n", "it trains -->\n")


def vectorised_table() -> str:
    """Steps per second of CPU time, a row for each arrangement and a column for each task."""
    rows = pd.read_csv(RESULTS / "vectorised.csv")
    keys = ["env", "num_envs"]
    medians = rows.groupby([*keys, "what"], sort=False)["steps_per_cpu_s"].median()
    columns = list(dict.fromkeys(zip(rows["env"], rows["num_envs"], strict=True)))
    lines = [["", *(f"{ENVS[env_id]}, {count:,}" for env_id, count in columns)]]
    for what in rows["what"].unique():
        found = (medians.get((*column, what)) for column in columns)
        lines.append([what, *("–" if each is None else f"{each:,.0f}" for each in found)])
    shares = (rows.groupby(keys)["physics"].median()[column] for column in columns)
    lines.append(["share of `mj_step`", *(f"{share:.0%}" if share else "–" for share in shares)])
    return _markdown(lines)


def metaworld_tasks() -> str:
    """In which of Meta-World's tasks a scripted policy takes the object to its goal."""
    rows = pd.read_csv(RESULTS / "metaworld_tasks.csv")
    tried = rows[rows["gets_there"].notna()]
    moved = tried[tried["begins_there"] == 0]
    groups = {
        "the object gets there": moved[moved["gets_there"] == moved["episodes"]],
        "in some episodes": moved[moved["gets_there"].between(0, moved["episodes"], "neither")],
        "it does not": moved[moved["gets_there"] == 0],
        "it is there from the beginning": tried[tried["begins_there"] > 0],
        "refused, for there are two objects": rows[rows["gets_there"].isna()],
    }
    lines = [["", "number", "tasks"]]
    lines += [
        [name, str(len(group)), ", ".join(task.removesuffix("-v3") for task in group["task"])]
        for name, group in groups.items()
    ]
    return _markdown(lines)


def logs_table() -> str:
    """What Fetch Push is worth to each method, from recorded steps alone and from there on."""
    rows = pd.read_csv(RESULTS / "fetch_push_from_logs.csv")
    lines = [["", "environment steps", "updates", "success", "distance left", "minutes"]]
    for method, runs in rows[rows["seed"] < 9].groupby("method", sort=False):  # 9 is for choosing
        lines.append(
            [
                str(method),
                f"{runs['env_steps'].iloc[0]:,}",
                f"{runs['updates'].iloc[0]:,}",
                f"{_listed(100 * runs['success_rate'])} %",
                f"{_listed(runs['normalized_distance'])} %",
                f"{_range(list(runs['train_s'] / 60))}",
            ]
        )
    return _markdown(lines)


PUBLISHED = {  # Park et al. 2024, arXiv 2410.20092, table 2: percent, means of eight seeds
    "pointmaze-medium-navigate": {"GCIQL": 53, "GCIVL": 63, "HIQL": 79, "QRL": 82},
    "pointmaze-large-navigate": {"GCIQL": 34, "GCIVL": 45, "HIQL": 58, "QRL": 86},
    "pointmaze-medium-stitch": {"GCIQL": 21, "GCIVL": 70, "HIQL": 74, "QRL": 80},
}


def ogbench_table() -> str:
    """OGBench's mazes as they are learned here, beside what others are published with."""
    rows = pd.read_csv(RESULTS / "ogbench.csv")
    others = ["GCIQL", "GCIVL", "HIQL", "QRL"]
    published = [f"{name}, published" for name in others]
    lines = [["task", "method", "updates", "minutes", "success", *published]]
    for (task, method), runs in rows.groupby(["task", "method"], sort=False):
        lines.append(
            [
                str(task),
                {"odac": "ODAC", "gciql": "GCIQL"}[str(method)],
                f"{runs['updates'].iloc[0]:,}",
                _range(list(runs["train_s"] / 60)),
                f"{_listed(100 * runs['success_rate'])} %",
                *(f"{PUBLISHED[str(task)][name]} %" for name in others),
            ]
        )
    return _markdown(lines)


def ogbench_trials_table() -> str:
    """The trials by which the settings for mazes were found."""
    rows = pd.read_csv(RESULTS / "ogbench_trials.csv")
    lines = [["task", "trial", "updates", "minutes", "success", "at best"]]
    for row in rows.itertuples():
        share = [f"{100 * value:.0f} %" for value in (row.success_rate, row.best)]
        minutes = f"{row.train_s / 60:.1f}"
        lines.append([row.task, row.method, f"{row.updates:,}", minutes, *share])
    return _markdown(lines)


def tables() -> dict[str, str]:
    """Every table, by the name that its comment has."""
    return {
        "success": success_table("paper_comparison"),
        "comparison": task_table("paper_comparison"),
        "ablation": task_table("paper_ablation"),
        "distance of the ablation": task_table("paper_ablation", "normalized_distance"),
        "tuned tasks": tuned_tasks(),
        "tasks of Meta-World": metaworld_tasks(),
        "comparison of version 0.1": task_table("version_0_1/paper_comparison"),
        "feeding": feeding_table(),
        "vectorised": vectorised_table(),
        "logs": logs_table(),
        "ogbench": ogbench_table(),
        "trials of OGBench": ogbench_trials_table(),
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
    seeds = {f"tuned_{name}": curves for name in TUNED if (curves := tuned_curves(name))}
    panda_reach = pd.read_csv(RESULTS / OTHERS.format("panda_reach"))
    seeds["works_with_panda_reach"] = [panda_reach]
    for name, curves in seeds.items():
        draw_success(curves, directory / f"{name}.png")
    return [directory / f"{name}.png" for name in (*CHARTS, *seeds)]


def draw_success(curves: Iterable[pd.DataFrame], path: Path) -> None:
    """Draws the success of each seed of a task over environment steps."""
    figure = Figure(figsize=(3.6, 2.4), layout="constrained")
    axes = figure.subplots()
    for curve in curves:
        evaluated = curve.dropna(subset=["success_rate"])
        axes.plot(evaluated["env_steps"] / 1000, 100 * evaluated["success_rate"], linewidth=1.5)
    axes.set(xlabel="thousand steps", ylabel="success (%)", ylim=(-4, 104), xlim=(0, None))
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=100)


def draw_pictures(directory: Path) -> None:
    """Draws the first moment of an episode of each tuned task."""
    for name in TUNED:
        env = make_env(json.loads((DIRECTORY / f"{name}.json").read_text())["env"], "rgb_array")
        env.reset(seed=0)
        picture = Image.fromarray(np.asarray(env.render()))
        env.close()
        height = round(PICTURE_WIDTH * picture.height / picture.width)
        small = picture.resize((PICTURE_WIDTH, height), Image.Resampling.LANCZOS)
        small.save(directory / f"task_{name}.png", optimize=True)


def main() -> None:
    """Writes charts and tables to where they belong."""
    for path in draw(ROOT / "docs" / "images"):
        print(path, file=sys.stderr)
    if "--pictures" in sys.argv:
        draw_pictures(ROOT / "docs" / "images")
    for page in PAGES:
        path = ROOT / page
        path.write_text(with_tables(path.read_text()))


def _cell(mean: float, std: float, seeds: int) -> str:
    spread = f" ± {100 * std:.0f}" if seeds > 1 else ""
    return f"{100 * mean:.0f}{spread} ({seeds})"


def _listed(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.0f}" for value in values)


def _range(values: list[float]) -> str:
    low, high = (f"{end(values):.1f}" for end in (min, max))
    return low if low == high else f"{low} to {high}"


def _markdown(lines: list[list[str]]) -> str:
    header, *rest = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([header, "|" + "---|" * len(lines[0]), *rest])


if __name__ == "__main__":
    main()
