"""Pictures of a sweep, as SVG: curves, parallel coordinates, importance."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pandas as pd

from rllib_odac.experiments.run import FIGURES
from rllib_odac.experiments.sweeps.space import initial

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rllib_odac.experiments.sweeps.results import SweepResults

BEST, DEFAULT, OTHERS = "#c2410c", "#1d4ed8", "#94a3b8"
LABELS = {
    "success_rate": "success rate",
    "final_distance": "final distance",
    "normalized_distance": "final distance, % of the initial one",
}
MANY = 200  # lines from which on they are drawn as pixels


def svg(draw: Callable[[Figure], None], width: float, height: float) -> str:
    """What a function draws, as SVG without XML's preamble.

    Args:
        draw: Draws into an empty figure.
        width: In inches.
        height: In inches.
    """
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "svg.fonttype": "none", "svg.hashsalt": "odac", "font.family": "sans-serif",
        "axes.spines.top": False, "axes.spines.right": False, "font.size": 9,
    }  # fmt: skip
    with mpl.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    _, start, rest = text.getvalue().partition("<svg")
    return start + rest


def curves(results: SweepResults) -> str:
    """Every trial's figures over environment steps; best and default stand out."""

    def draw(figure: Figure) -> None:
        metric = results.sweep.study.metric
        shown = ["success_rate", metric if metric != "success_rate" else "final_distance"]
        for axes, name in zip(figure.subplots(1, 2), shown, strict=True):
            _draw_curves(axes, results, name)
            axes.set(xlabel="environment steps", ylabel=LABELS[name])
        figure.axes[0].axhline(results.sweep.study.threshold, color="#64748b", lw=0.8, ls=":")
        figure.axes[0].set_ylim(-0.03, 1.03)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        named = dict(zip(labels, handles, strict=True))
        figure.legend(named.values(), named, loc="outside upper center", ncols=4, frameon=False)

    return svg(draw, 10, 3.8)


def best_against_default(results: SweepResults) -> str:
    """Mean curves of the best configuration and of the default, with every seed's."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots(1, len(FIGURES))
        chosen = [(results.best, "best", BEST)]
        if results.default is not None and not results.best["is_default"]:
            chosen.append((results.default, "default", DEFAULT))
        for one, name in zip(axes, FIGURES, strict=True):
            for row, label, color in chosen:
                _draw_configuration(one, results, int(row["configuration"]), name, label, color)
            one.set(xlabel="environment steps", ylabel=LABELS[name])
        axes[0].legend(frameon=False)

    return svg(draw, 10, 3.2)


def parallel_coordinates(results: SweepResults) -> str:
    """A line a configuration through its hyper-parameters to its metric."""

    def draw(figure: Figure) -> None:
        study = results.sweep.study
        table = results.configurations
        names = [*study.space, study.metric]
        axes = figure.subplots()
        heights = np.stack(
            [_heights(axes, i, results, table, name) for i, name in enumerate(names)]
        )
        figures = table[study.metric].rank(pct=True, ascending=study.mode == "max").to_numpy()
        colors = mpl.colormaps["viridis"](figures)
        # The best is drawn last, over the others.
        for i in reversed(range(len(table))):
            is_best, is_default = i == 0, bool(table["is_default"].iloc[i])
            axes.plot(
                heights[:, i],
                color=BEST if is_best else DEFAULT if is_default else colors[i],
                lw=2.4 if is_best or is_default else 1,
                alpha=1 if is_best or is_default else 0.6,
                label="best" if is_best else "default" if is_default else None,
                rasterized=len(table) > MANY,
            )
        axes.set_xticks(range(len(names)), [n.replace("_", "_\n") for n in names])
        axes.set(ylim=(-0.08, 1.08), xlim=(-0.3, len(names) - 0.55), yticks=[])
        axes.spines[:].set_visible(False)
        axes.tick_params(axis="x", length=0)
        figure.legend(loc="outside upper center", ncols=2, frameon=False)

    return svg(draw, 10, 4)


def importance_bars(results: SweepResults) -> str:
    """Variance explained by each hyper-parameter; pale where chance may do as well."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        table = results.importances.iloc[::-1]
        certain = table["p_value"] < 0.05
        axes.barh(table.index, table["explained"], color=[BEST if c else OTHERS for c in certain])
        for i, row in enumerate(table.itertuples()):
            axes.annotate(f"  p = {row.p_value:.3f}", (row.explained, i), va="center")
        axes.set(xlabel="share of the ranked metric's variance explained alone", xlim=(0, 1))

    return svg(draw, 8, 0.8 + 0.32 * max(1, len(results.importances)))


def _draw_curves(axes: Any, results: SweepResults, name: str) -> None:
    default = results.default
    kinds = {int(results.best["configuration"]): ("best", BEST)}
    if default is not None:
        kinds.setdefault(int(default["configuration"]), ("default", DEFAULT))
    rows = list(zip(results.trials["trial"], results.trials["configuration"], strict=True))
    for trial, configuration in sorted(rows, key=lambda row: row[1] in kinds):
        if trial not in results.curves:
            continue
        curve = results.curves[trial]
        label, color = kinds.get(configuration, ("others", OTHERS))
        axes.plot(
            *(curve["env_steps"], curve[name]),
            color=color, lw=2 if configuration in kinds else 0.9,
            alpha=1 if configuration in kinds else 0.7, label=label,
            rasterized=len(rows) > MANY,
        )  # fmt: skip


def _draw_configuration(
    axes: Any, results: SweepResults, number: int, name: str, label: str, color: str
) -> None:
    trials = results.trials[results.trials["configuration"] == number]["trial"]
    found = [results.curves[trial] for trial in trials if trial in results.curves]
    if not found:
        return
    for curve in found:
        axes.plot(curve["env_steps"], curve[name], color=color, lw=0.7, alpha=0.5)
    mean = pd.concat(found).groupby("env_steps")[name].mean()
    axes.plot(mean.index, mean, color=color, lw=2, label=label)


def _heights(
    axes: Any, place: int, results: SweepResults, table: pd.DataFrame, name: str
) -> Sequence[float]:
    """Draws one upright axis and returns where on it each configuration stands, in [0, 1]."""
    domain = results.sweep.study.space.get(name)
    values = table[name].tolist()
    axes.axvline(place, color="#475569", lw=1)
    if domain is not None and domain.is_numeric:
        values = [initial(value) for value in values]
    if not all(isinstance(value, int | float) for value in values):
        kinds = sorted({json.dumps(value) for value in values})
        marks = {kind: (i + 0.5) / len(kinds) for i, kind in enumerate(kinds)}
        for kind, height in marks.items():
            axes.text(place + 0.03, height, kind, fontsize=8, va="center")
        return [marks[json.dumps(value)] for value in values]
    is_log = domain is not None and domain.kind == "log_uniform"
    scale: Callable[[float], float] = math.log if is_log else float
    known = [value for value in values if math.isfinite(value)]
    low, high = min(known, default=0.0), max(known, default=1.0)
    span = scale(high) - scale(low) or 1.0
    for value in (low, high):
        axes.text(
            place + 0.03, (scale(value) - scale(low)) / span, f"{value:.3g}",
            fontsize=8, va="bottom" if value == high else "top",
        )  # fmt: skip
    return [(scale(v) - scale(low)) / span if math.isfinite(v) else math.nan for v in values]
