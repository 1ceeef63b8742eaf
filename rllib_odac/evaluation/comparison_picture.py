"""The picture of a comparison: learning curves, intervals and a performance profile."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd

from rllib_odac.evaluation.compare import METRICS, Comparison
from rllib_odac.evaluation.statistics import bootstrap_interval, performance_profile

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

MOST_CURVES = 10  # further tasks are left out of the picture
# Okabe and Ito's palette; lines differ without colour too.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8B6F47")
_LINES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 3)), (0, (1, 1)))


def plot_comparison(comparison: Comparison, path: Path) -> None:
    """The comparison's `curve` over environment steps, by task, and what holds over common tasks.

    Args:
        comparison: The comparison.
        path: PNG file to write.
    """
    tasks = comparison.task_names[:MOST_CURVES]
    over_tasks = bool(comparison.common_tasks) and not comparison.mixes_units
    panels = len(tasks) + 2 * over_tasks
    columns = min(panels, min((4, 3), key=lambda count: -panels % count))  # fewest empty places
    rows = -(-panels // columns)
    size = (3.4 * columns, 2.7 * rows + 0.5)
    figure, grid = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    axes = list(grid.flat)
    for ax, task in zip(axes, tasks, strict=False):
        _plot_curves(ax, comparison, task)
    for ax in axes[panels:]:
        ax.set_axis_off()
    if over_tasks:
        _plot_intervals(axes[panels - 2], comparison)
        _plot_profile(axes[panels - 1], comparison)
    handles = [
        Line2D([], [], lw=2, label=comparison.label(method), **_style(comparison, method))
        for method in comparison.method_names
    ]
    beside = min(len(handles), 2 * columns)  # more would be cut off at the edges
    figure.legend(handles=handles, loc="outside upper center", ncols=beside, handlelength=3.5)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _plot_curves(ax: Axes, comparison: Comparison, task: str) -> None:
    column = comparison.curve
    text, factor, _ = METRICS.get(column, (column.replace("_", " "), 1, True))
    lowest = 0.0
    for method in comparison.method_names:
        curves = comparison.studies.curves
        runs = [run for key, run in curves.items() if key[:2] == (task, method)]
        if not runs:
            continue
        style = _style(comparison, method)
        for run in runs:
            run = run[run[column].notna()]  # noqa: PLW2901  (a loss that a method has not)
            lowest = min(lowest, run[column].min())
            steps, values = run["env_steps"] / 1000, factor * run[column]
            ax.plot(steps, values, color=style["color"], lw=0.7, alpha=0.35)
        # Only where all seeds are: a mean over fewer would jump. In between, straight lines: seeds
        # that run asynchronously are not judged at the same steps.
        by_seed = pd.concat([run.set_index("env_steps")[column] for run in runs], axis=1)
        between = by_seed.sort_index().interpolate("index", limit_area="inside")
        mean = factor * between.dropna().mean(axis=1)
        ax.plot(mean.index / 1000, mean, lw=2, **style)
    if column == "success_rate":
        text = "success (%)"
        ax.axhline(100 * comparison.threshold, color="0.75", lw=0.8, zorder=0)
        ax.set_ylim(-3, 103)
    if lowest < -50:  # nats of goals far away, beside those of goals within reach
        ax.set_yscale("symlog", linthresh=10)
    ax.set(title=task, xlabel="environment steps (thousands)", ylabel=text)
    ax.grid(alpha=0.3)


def _plot_intervals(ax: Axes, comparison: Comparison) -> None:
    text, factor, _ = METRICS[comparison.metric]
    rows = comparison.methods.to_dict("records")
    for height, row in enumerate(rows):
        color = _style(comparison, row["method"])["color"]
        low, middle, high = (factor * row[name] for name in ("iqm_low", "iqm", "iqm_high"))
        ax.barh(height, high - low, left=low, height=0.6, color=color, alpha=0.45)
        ax.plot([middle, middle], [height - 0.3, height + 0.3], color=color, lw=3)
    ax.set_yticks(range(len(rows)), [comparison.label(row["method"]) for row in rows])
    ax.invert_yaxis()
    ax.set(title=f"IQM over {_tasks(comparison)}, 95 %", xlabel=text)
    ax.use_sticky_edges = False
    ax.margins(x=0.1)
    ax.grid(alpha=0.3, axis="x")


def _plot_profile(ax: Axes, comparison: Comparison) -> None:
    text, factor, more_is_better = METRICS[comparison.metric]
    sign = 1 if more_is_better else -1  # below a distance is above its negative
    every = np.concatenate([np.concatenate(comparison.scores(m)) for m in comparison.method_names])
    upper = 1 if more_is_better else min(1.05 * every.max(), 150)
    # Just below each threshold, so that a run at 100 % is counted at 100 %.
    thresholds = np.linspace(0, upper, 101)
    profile = partial(performance_profile, thresholds=sign * thresholds - 1e-9)
    for method in comparison.method_names:
        scores = [sign * runs for runs in comparison.scores(method)]
        style = _style(comparison, method)
        low, high = bootstrap_interval(profile, scores)
        ax.fill_between(
            factor * thresholds, 100 * low, 100 * high, color=style["color"], alpha=0.15
        )
        ax.plot(factor * thresholds, 100 * profile(scores), lw=2, **style)
    side = "at least" if more_is_better else "at most"
    ax.set(title=f"profile over {_tasks(comparison)}, 95 %", xlabel=f"τ: {text}")
    ax.set(ylabel=f"share of runs with {side} τ (%)", ylim=(-3, 103))
    ax.grid(alpha=0.3)


def _tasks(comparison: Comparison) -> str:
    count = len(comparison.common_tasks)
    return f"{count} task{'s' if count > 1 else ''}"


def _style(comparison: Comparison, method: str) -> dict[str, Any]:
    place = comparison.method_names.index(method)
    return {
        "color": _COLORS[place % len(_COLORS)],
        "linestyle": _LINES[place % len(_LINES)],
    }
