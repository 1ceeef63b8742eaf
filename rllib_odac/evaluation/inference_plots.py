"""Pictures of what was inferred; `inference` computes what they show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from rllib_odac.evaluation.inference import Array, PlaneFields, coverage
from rllib_odac.evaluation.statistics import rank_correlation

matplotlib.use("Agg")
from matplotlib import patheffects
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullFormatter

from rllib_odac.evaluation.plots import BLUE, GREEN, GREY, ORANGE

PURPLE = "#CC79A7"  # of Okabe and Ito's palette too
COORDINATES = (BLUE, ORANGE, GREEN, PURPLE, "#E69F00", "#56B4E9")
MOST_FRAMES = 8

# Symbol, words and, for ODAC, the unit of what is drawn over the plane and over time.
LABELS = {
    "reward": ("$r(s, a, g)$", "reward"),
    "discount": (r"$q_\Delta(0)$", "discount"),
    "value": ("$V(s, g)$", "value"),
    "log_prob_goal": (r"$\log p(g\,|\,s, a)$", "log-likelihood"),
    "disagreement": ("$u(s, a)$", "disagreement"),
}
UNITS = {"discount": "probability of going on", "disagreement": "goal scales"}  # not the values'


def plot_fields(
    fields: Sequence[PlaneFields],
    goals: Sequence[Array],
    paths: Sequence[Sequence[Array]],
    regions: Array,
    unit: str,
    place_unit: str,
    file: Path,
) -> None:
    """The inferred quantities over the plane, one row a goal.

    Args:
        fields: For each goal.
        goals: (2,) each.
        paths: For each goal the places (T + 1, 2) of some episodes that seek it.
        regions: (W, 2, 2) corners of rectangles where nobody can be.
        unit: Of values and rewards.
        place_unit: Of the plane.
        file: PNG to write.
    """
    names = [name for name in LABELS if name in fields[0].fields]
    size = (2.8 * len(names) + 0.3, 2.05 * len(fields) + 0.65)
    figure, grid = plt.subplots(
        len(fields), len(names), figsize=size, layout="constrained", squeeze=False,
        sharex=True, sharey=True,
    )  # fmt: skip
    for column, name in enumerate(names):
        free = [field.fields[name][~_inside(field, regions)] for field in fields]
        low, high = min(map(np.min, free)), max(map(np.max, free))
        symbol, word = LABELS[name]
        for row, (field, goal) in enumerate(zip(fields, goals, strict=True)):
            ax = grid[row, column]
            mesh = ax.pcolormesh(
                field.x, field.y, field.fields[name], vmin=low, vmax=high, cmap="viridis",
                shading="gouraud", rasterized=True,
            )  # fmt: skip
            for (x0, y0), (x1, y1) in regions:
                wall = Rectangle((x0, y0), x1 - x0, y1 - y0, facecolor="0.55", edgecolor="0.3")
                ax.add_patch(wall)
            _draw_paths(ax, paths[row], goal)
            ax.set_aspect("equal")
            ax.set_xlim(field.x[0], field.x[-1])
            ax.set_ylim(field.y[0], field.y[-1])
        label = UNITS.get(name, unit)
        figure.colorbar(mesh, ax=list(grid[:, column]), label=label, aspect=14 * len(fields))
        grid[0, column].set_title(f"{word} {symbol}", fontsize=10)
        grid[-1, column].set_xlabel(f"x ({place_unit})")
    for row in range(len(fields)):
        grid[row, 0].set_ylabel(f"y ({place_unit})")
    if (layout := figure.get_layout_engine()) is not None:
        layout.set(w_pad=0.09)  # type: ignore[call-arg]
    _save(figure, file)


def _inside(field: PlaneFields, regions: Array) -> Any:
    x, y = np.meshgrid(field.x, field.y)
    inside = np.zeros(x.shape, dtype=bool)
    for (x0, y0), (x1, y1) in regions:
        inside |= (x > x0) & (x < x1) & (y > y0) & (y < y1)
    return inside


def _draw_paths(ax: Axes, paths: Sequence[Array], goal: Array) -> None:
    edge = [patheffects.withStroke(linewidth=2.6, foreground="black")]
    for path in paths:
        ax.plot(*path.T, color="white", lw=1.2, path_effects=edge)
        ax.plot(*path[0], marker="o", color="white", markeredgecolor="black", markersize=5)
    ax.plot(*goal, marker="*", color=ORANGE, markeredgecolor="black", markersize=15)


def plot_episode(
    quantities: Mapping[str, Array],
    distances: Sequence[float],
    success_distance: float | None,
    frames: Sequence[Any],
    unit: str,
    place_unit: str,
    title: str,
    file: Path,
) -> None:
    """One episode: its frames, and below them what was inferred, over the same time axis.

    Args:
        quantities: (T,) as of `infer`, along the episode.
        distances: (T + 1,) to the goal.
        success_distance: From which on the goal counts as reached, if anyone says so.
        frames: (T + 1,) pictures (H, W, 3), or none.
        unit: Of values and rewards.
        place_unit: Of distances.
        title: Heading.
        file: PNG to write.
    """
    names = [name for name in LABELS if name in quantities]
    steps = len(distances) - 1
    ratios = ([1.25] if len(frames) else []) + [1.0] * (1 + len(names))
    figure, rows = plt.subplots(
        len(ratios), 1, figsize=(9, 1.25 * sum(ratios) + 0.6), sharex=True, layout="constrained",
        height_ratios=ratios,
    )  # fmt: skip
    panels = list(np.atleast_1d(rows))
    if len(frames):
        _draw_frames(panels.pop(0), frames, steps)
    ax = panels.pop(0)
    ax.plot(distances, color="black", lw=1.8)
    ax.set_ylabel(f"distance\n({place_unit})")
    ax.set_ylim(0, 1.25 * max(*distances, success_distance or 0))
    if success_distance is not None:
        ax.axhline(success_distance, color=GREY, lw=1, ls="--")
        ax.text(steps, success_distance, "reached below ", ha="right", va="bottom", color="0.35")
    colors = dict(zip(LABELS, (GREEN, PURPLE, BLUE, ORANGE, "black"), strict=True))
    for name, panel in zip(names, panels, strict=True):
        symbol, word = LABELS[name]
        panel.plot(quantities[name], color=colors[name], lw=1.8)
        shown_unit = "" if name == "discount" else f"\n({UNITS.get(name, unit)})"
        panel.set_ylabel(f"{word}\n{symbol}{shown_unit}")
        if name == "discount":
            panel.set_ylim(-0.05, 1.05)
    for panel in [ax, *panels]:
        panel.grid(alpha=0.3)
    last = (panels or [ax])[-1]
    last.set(xlabel="time step", xlim=(0, steps))
    figure.align_ylabels()
    figure.suptitle(title)
    _save(figure, file)


def _draw_frames(ax: Axes, frames: Sequence[Any], steps: int) -> None:
    count = min(MOST_FRAMES, steps)
    width = steps / count
    for i in range(count):
        middle = (i + 0.5) * width
        frame = frames[round(middle)]
        side = min(frame.shape[:2])  # the middle square, so that frames stand close together
        top, left = ((length - side) // 2 for length in frame.shape[:2])
        square = frame[top : top + side, left : left + side]
        inset = ax.inset_axes(
            ((middle - width / 2) / steps, 0, 1 / count, 1), transform=ax.transAxes
        )
        inset.imshow(square, aspect="equal", interpolation="antialiased")
        inset.set_axis_off()
        inset.set_title(f"t = {round(middle)}", fontsize=8, pad=2)
    ax.set_axis_off()


def plot_termination(
    inferred: Array, prior: Array, medians: Array, arrivals: Array, file: Path
) -> None:
    """Inferred termination times against the prior, and against when the goal was reached.

    Args:
        inferred: (N + 1,) q_T, the mean over episodes; the last is the mass of later times.
        prior: (N + 1,) p_T, likewise.
        medians: (E,) the median of each episode's q_T, in steps; NaN where it is later.
        arrivals: (E,) the step after which the goal was reached first; NaN where it never was.
        file: PNG to write.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    steps = len(prior) - 1
    gap = max(2, steps // 12)
    place = np.append(np.arange(steps), steps + gap)
    wide = np.append(np.ones(steps), gap)
    left.bar(place, inferred, width=wide, color=BLUE, label="inferred $q_T$, mean of episodes")
    left.step(np.arange(steps), prior[:-1], where="mid", color=ORANGE, lw=2, label="prior $p_T$")
    left.plot([steps + gap / 2, steps + 1.5 * gap], [prior[-1]] * 2, color=ORANGE, lw=2)
    ticks = [t for t in left.get_xticks() if 0 <= t < steps]
    left.set_xticks([*ticks, steps + gap], [*(f"{t:.0f}" for t in ticks), "later"])
    left.set(xlabel="termination time T (steps)", ylabel="probability")
    left.legend()
    known = ~np.isnan(medians) & ~np.isnan(arrivals)
    right.scatter(arrivals[known], medians[known], color=BLUE, s=18, alpha=0.7)
    limit = 1 + np.nanmax(np.append(np.append(arrivals, medians), 4.0))
    right.plot([0, limit], [0, limit], color=GREY, lw=1, ls="--")
    never, later = int(np.isnan(arrivals).sum()), int(np.isnan(medians).sum())
    notes = [f"not reached: {never}"] * (never > 0) + [f"median later: {later}"] * (later > 0)
    right.set_title(f"{known.sum()} episodes" + "".join(f", {n}" for n in notes), fontsize=10)
    right.set(xlabel="goal first reached (step)", ylabel="median of inferred $q_T$ (step)")
    right.set(xlim=(0, limit), ylim=(0, limit))
    for ax in (left, right):
        ax.grid(alpha=0.3)
    _save(figure, file)


def plot_calibration(prediction: Mapping[str, Array], unit: str, file: Path) -> None:
    """Predicted against realised next achieved goals, and the coverage of the predicted scale.

    Of several models also how far they are apart, against how wrong their mean is.

    Args:
        prediction: As of `predict_next`.
        unit: Of goals.
        file: PNG to write.
    """
    panels = 3 if "disagreement" in prediction else 2
    size = (4.5 * panels, 3.8)
    figure, (left, right, *third) = plt.subplots(1, panels, figsize=size, layout="constrained")
    predicted, realised = prediction["predicted"], prediction["realised"]
    nominal = np.linspace(0, 1, 101)
    for i in range(predicted.shape[1]):
        color = COORDINATES[i % len(COORDINATES)]
        left.scatter(realised[:, i], predicted[:, i], color=color, s=6, alpha=0.5, lw=0)
        share = coverage(prediction["central_probability"][:, i], nominal)
        style = ("-", "--", ":", "-.")[i % 4]
        label = f"coordinate {i + 1}"
        right.plot(100 * nominal, 100 * share, color=color, ls=style, lw=2, label=label)
    ends = [min(realised.min(), predicted.min()), max(realised.max(), predicted.max())]
    left.plot(ends, ends, color=GREY, lw=1, ls="--")
    left.set_xlabel(f"realised change of the achieved goal ({unit})")
    left.set_ylabel(f"predicted, median ({unit})")
    right.plot([0, 100], [0, 100], color=GREY, lw=1, ls="--")
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1}
    right.text(3, 93, "scale too wide", color="0.35", bbox=box)
    right.text(97, 42, "scale too narrow", color="0.35", ha="right", bbox=box)
    left.locator_params(nbins=6)
    right.set_xlabel("nominal probability of the central interval (%)")
    right.set_ylabel("realised values within (%)")
    right.legend(loc="lower right", fontsize=8, ncols=2 if predicted.shape[1] > 4 else 1)
    for ax in third:
        error = np.linalg.norm(predicted - realised, axis=-1)
        _plot_disagreement(ax, prediction["disagreement"], error, unit)
    for ax in (left, right, *third):
        ax.grid(alpha=0.3)
    _save(figure, file)


def _plot_disagreement(ax: Axes, disagreement: Array, error: Array, unit: str) -> None:
    shown = (disagreement > 0) & (error > 0)
    ax.scatter(disagreement[shown], error[shown], color=BLUE, s=6, alpha=0.4, lw=0)
    tenths = np.array_split(np.argsort(disagreement), 10)
    medians = [(np.median(disagreement[i]), np.median(error[i])) for i in tenths if len(i)]
    ax.plot(*zip(*medians, strict=True), color=ORANGE, lw=2, marker="o", ms=4, label="medians")
    ax.set(xscale="log", yscale="log", xlabel=f"disagreement of the models ({unit})")
    ax.set_ylabel(f"error of their mean ({unit})")
    for axis in (ax.xaxis, ax.yaxis):  # labels stand close within one decade
        axis.set_major_locator(LogLocator(subs=(1, 3)))
        axis.set_minor_formatter(NullFormatter())
    ax.set_title(f"rank correlation {rank_correlation(disagreement, error):.2f}", fontsize=10)
    ax.legend(fontsize=8)


def plot_value_outcome(
    values: Sequence[float],
    returns: Sequence[float] | None,
    distances: Sequence[float],
    successes: Sequence[bool],
    unit: str,
    place_unit: str,
    file: Path,
) -> None:
    """The value of each first state against what came of it.

    Args:
        values: (E,) V(s0, g).
        returns: (E,) as of `realised_return`, if the objective's reward is known.
        distances: (E,) to the goal at the end.
        successes: (E,) whether the goal is reached at the end.
        unit: Of values.
        place_unit: Of distances.
        file: PNG to write.
    """
    panels = 1 if returns is None else 2
    figure, grid = plt.subplots(
        1, panels, figsize=(4.5 * panels, 3.6), layout="constrained", squeeze=False
    )
    axes = list(grid.flat)
    reached = np.array(successes)
    if returns is not None:
        ax = axes.pop(0)
        _scatter(ax, np.array(values), np.array(returns), reached)
        ends = [min(*values, *returns), max(*values, *returns)]
        ax.plot(ends, ends, color=GREY, lw=1, ls="--")
        ax.set(xlabel=f"value of the first state V(s₀, g) ({unit})", ylabel=f"realised ({unit})")
        ax.set_title(f"rank correlation {rank_correlation(values, returns):.2f}", fontsize=10)
        ax.legend(fontsize=8)
    ax = axes[0]
    _scatter(ax, np.array(values), np.array(distances), reached)
    ax.set_xlabel(f"value of the first state V(s₀, g) ({unit})")
    ax.set_ylabel(f"distance at the end ({place_unit})")
    ax.set_title(f"rank correlation {rank_correlation(values, distances):.2f}", fontsize=10)
    if min(distances) > 0 and max(distances) > 20 * min(distances):
        ax.set_yscale("log")
    ax.legend(fontsize=8)
    for ax in grid.flat:
        ax.grid(alpha=0.3)
    _save(figure, file)


def _scatter(ax: Axes, x: Array, y: Array, reached: Any) -> None:
    for which, marker, color, label in (
        (reached, "o", BLUE, "reached"),
        (~reached, "X", ORANGE, "not reached"),
    ):
        if which.any():
            ax.scatter(x[which], y[which], marker=marker, color=color, s=26, alpha=0.75,
                       lw=0, label=f"{label} ({which.sum()})")  # fmt: skip


def _save(figure: Figure, file: Path) -> None:
    figure.savefig(file, dpi=110, facecolor="white")
    plt.close(figure)
