"""Pictures of a run: learning curves and the way to the goal."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pandas as pd

matplotlib.use("Agg")
from matplotlib import pyplot as plt

# Okabe and Ito's palette, which colour-blind readers can tell apart.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"


def plot_learning_curve(progress: pd.DataFrame, path: Path, title: str) -> None:
    """Success rate and final distance over environment steps, or updates where there are none.

    Args:
        progress: Rows of `progress.csv`.
        path: PNG file to write.
        title: Heading of the picture.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    progress = progress.dropna(subset=["success_rate", "final_distance"])
    is_offline = (progress["env_steps"] == 0).all()
    steps = progress["updates" if is_offline else "env_steps"]
    label = "updates" if is_offline else "environment steps"
    left.plot(steps, 100 * progress["success_rate"], color=BLUE, marker="o", markersize=3)
    left.set(xlabel=label, ylabel="success on held-out goals (%)", ylim=(-3, 103))
    right.plot(steps, progress["final_distance"], color=ORANGE, marker="o", markersize=3)
    right.set(xlabel=label, ylabel="final distance to the goal (task's unit)")
    if (progress["final_distance"] > 0).all():
        right.set_yscale("log")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.suptitle(title)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def plot_distances(distances: list[list[float]], path: Path, title: str) -> None:
    """Distance to the goal over time, one line an episode.

    Args:
        distances: For each episode (T + 1,) distances to its goal.
        path: PNG file to write.
        title: Heading of the picture.
    """
    figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
    for values in distances:
        axes.plot(values, color=BLUE, alpha=0.6, linewidth=1)
    axes.set(xlabel="time step", ylabel="distance to the goal (task's unit)", title=title)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)
