"""`describe`: what a data set holds, in numbers and in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rllib_odac.data.read import read_episodes
from rllib_odac.storage import PLACE

DRAWN = 20_000  # states in the picture, at most


def describe(
    path: PLACE,
    goal: Sequence[int] | None = None,
    success_distance: float | None = None,
    picture: Path | None = None,
) -> dict[str, Any]:
    """Reads all of a data set and describes it.

    Args:
        path: As `read_episodes` takes it.
        goal: The same.
        success_distance: Euclidean distance within which an episode's goal counts as reached at its
            end; None to leave that out.
        picture: PNG file for the achieved goals, the first two coordinates; None for no picture.

    Returns:
        `episodes`, `steps`, `shortest`, `longest`, `widths` of the columns, `ranges` (least and
        largest value) of observations, goals and actions, `terminated_share`, `moved` (median
        distance between the first and the last achieved goal of an episode) and, if asked for,
        `reached_share`.

    Raises:
        ValueError: As `read_episodes`.
    """
    lengths: list[int] = []
    moved: list[float] = []
    reached: list[bool] = []
    terminated = 0
    ranges: dict[str, list[float]] = {}
    widths: dict[str, int] = {}
    paths = []
    for episode in read_episodes(path, goal):
        widths = episode.widths
        lengths.append(len(episode))
        terminated += episode.terminated
        achieved = episode.achieved_goal
        moved.append(float(np.linalg.norm(achieved[-1] - achieved[0])))
        left = np.linalg.norm(achieved[-1] - episode.desired_goal[-1])
        reached.append(bool(success_distance is not None and left <= success_distance))
        for name in ("observation", "achieved_goal", "desired_goal", "actions"):
            values = getattr(episode, name)
            low, high = ranges.get(name, [np.inf, -np.inf])
            ranges[name] = [min(low, float(values.min())), max(high, float(values.max()))]
        if picture is not None:
            paths.append(achieved[:, :2].copy())  # a view would keep all of the log
    found: dict[str, Any] = {
        "episodes": len(lengths),
        "steps": sum(lengths),
        "shortest": min(lengths),
        "longest": max(lengths),
        "widths": widths,
        "ranges": ranges,
        "terminated_share": terminated / len(lengths),
        "moved": float(np.median(moved)),
    }
    if success_distance is not None:
        found["reached_share"] = float(np.mean(reached))
    if picture is not None:
        _draw(paths, picture, str(path))
    return found


def _draw(paths: list[Any], file: Path, title: str) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    states = np.concatenate(paths)
    if states.shape[1] == 1:  # one number: over time
        states = np.column_stack([np.concatenate([np.arange(len(path)) for path in paths]), states])
    shown = np.random.default_rng(0).permutation(len(states))[:DRAWN]
    figure, axes = plt.subplots(figsize=(5, 4.5), layout="constrained")
    axes.scatter(states[shown, 0], states[shown, 1], s=4, alpha=0.5, linewidths=0, color="#3b6ea5")
    axes.set(xlabel="goal coordinate 0", ylabel="goal coordinate 1", title=title)
    axes.grid(alpha=0.3)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)
    plt.close(figure)
