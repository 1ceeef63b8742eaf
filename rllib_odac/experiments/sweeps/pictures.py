"""Pictures of a sweep, as SVG: curves, parallel coordinates, importance."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pandas as pd

from rllib_odac.experiments.sweeps.space import initial
from rllib_odac.metrics import FIGURES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from rllib_odac.experiments.sweeps.results import SweepResults

BEST, DEFAULT, OTHERS = "#c2410c", "#1d4ed8", "#94a3b8"
LABELS = {
    "success_rate": "success rate",
    "final_distance": "final distance",
    "normalized_distance": "final distance, % of the initial one",
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "odac", "font.family": "sans-serif",
    "axes.spines.top": False, "axes.spines.right": False, "font.size": 9,
}  # fmt: skip
MANY = 200  # lines from which on they are drawn as pixels


def draw_svg(draw: Callable[[Figure], None], width: float, height: float) -> str:
    """What a function draws into an empty figure, as SVG.

    Args:
        draw: Draws into the figure.
        width: In inches.
        height: In inches.
    """
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def curves(results: SweepResults) -> str:
    """Every trial's figures over environment steps; best and default stand out."""
    spec, chosen = results.sweep.spec, _chosen(results)
    names = ["success_rate", spec.metric if spec.metric != "success_rate" else "final_distance"]
    rows = list(zip(results.trials["trial"], results.trials["configuration"], strict=True))
    rows.sort(key=lambda row: row[1] in chosen)  # drawn last, over the others

    def draw(figure: Figure) -> None:
        for axes, name in zip(figure.subplots(1, 2), names, strict=True):
            for trial, configuration in rows:
                if trial in results.curves:
                    label, color = chosen.get(configuration, ("others", OTHERS))
                    axes.plot(
                        results.curves[trial]["env_steps"],
                        results.curves[trial][name],
                        color=color,
                        lw=2 if configuration in chosen else 0.9,
                        alpha=1 if configuration in chosen else 0.7,
                        label=label,
                        rasterized=len(rows) > MANY,
                    )
            axes.set(xlabel="environment steps", ylabel=LABELS[name])
        figure.axes[0].axhline(spec.threshold, color="#64748b", lw=0.8, ls=":")
        figure.axes[0].set_ylim(-0.03, 1.03)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        named = dict(zip(labels, handles, strict=True))
        figure.legend(named.values(), named, loc="outside upper center", ncols=4, frameon=False)

    return draw_svg(draw, 10, 3.8)


def best_against_default(results: SweepResults) -> str:
    """Mean curves over seeds of the best configuration and of the default, with every seed's."""
    trials = results.trials.set_index("configuration")["trial"]

    def draw(figure: Figure) -> None:
        for axes, name in zip(figure.subplots(1, len(FIGURES)), FIGURES, strict=True):
            for number, (label, color) in _chosen(results).items():
                found = [results.curves[t] for t in trials.loc[[number]] if t in results.curves]
                for curve in found:
                    axes.plot(curve["env_steps"], curve[name], color=color, lw=0.7, alpha=0.5)
                if found:
                    mean = pd.concat(found).groupby("env_steps")[name].mean()
                    axes.plot(mean.index, mean, color=color, lw=2, label=label)
            axes.set(xlabel="environment steps", ylabel=LABELS[name])
        figure.axes[0].legend(frameon=False)

    return draw_svg(draw, 10, 3.2)


def parallel_coordinates(results: SweepResults) -> str:
    """A line a configuration through its hyper-parameters to its metric."""
    spec, table, chosen = results.sweep.spec, results.configurations, _chosen(results)
    names = [*spec.space, spec.metric]
    ranks = table[spec.metric].rank(pct=True, ascending=spec.mode == "max").to_numpy()
    colors = mpl.colormaps["viridis"](ranks)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        heights = np.stack([_draw_axis(axes, i, results, name) for i, name in enumerate(names)])
        for i in reversed(range(len(table))):  # the best last, over the others
            label, color = chosen.get(int(table["configuration"].iloc[i]), (None, colors[i]))
            axes.plot(
                heights[:, i],
                color=color,
                lw=1 if label is None else 2.4,
                alpha=0.6 if label is None else 1,
                label=label,
                rasterized=len(table) > MANY,
            )
        axes.set_xticks(range(len(names)), [n.replace("_", "_\n") for n in names])
        axes.set(ylim=(-0.08, 1.08), xlim=(-0.3, len(names) - 0.55), yticks=[])
        axes.spines[:].set_visible(False)
        axes.tick_params(axis="x", length=0)
        figure.legend(loc="outside upper center", ncols=2, frameon=False)

    return draw_svg(draw, 10, 4)


def importance_bars(results: SweepResults) -> str:
    """Variance explained by each hyper-parameter; grey where chance may do as well."""
    table = results.importances.iloc[::-1]
    colors = [BEST if p < 0.05 else OTHERS for p in table["p_value"]]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        bars = axes.barh(table.index, table["explained"], color=colors)
        axes.bar_label(bars, [f"p = {p:.3f}" for p in table["p_value"]], padding=5)
        axes.set(xlabel="share of the ranked metric's variance explained alone", xlim=(0, 1))

    return draw_svg(draw, 8, 0.8 + 0.32 * max(1, len(table)))


def _chosen(results: SweepResults) -> dict[int, tuple[str, str]]:
    """By configuration, label and colour of those that stand out."""
    chosen = {int(results.best["configuration"]): ("best", BEST)}
    if results.default is not None:
        chosen.setdefault(int(results.default["configuration"]), ("default", DEFAULT))
    return chosen


def _draw_axis(axes: Any, x: int, results: SweepResults, name: str) -> Sequence[float]:
    """Draws one upright axis and returns where on it each configuration stands, in [0, 1]."""
    domain = results.sweep.spec.space.get(name)
    values = results.configurations[name].tolist()
    axes.axvline(x, color="#475569", lw=1)
    if domain is not None and domain.is_numeric:
        values = [initial(value) for value in values]
    if not all(isinstance(value, int | float) for value in values):
        texts = [json.dumps(value) for value in values]
        kinds = sorted(set(texts))
        heights = {kind: (i + 0.5) / len(kinds) for i, kind in enumerate(kinds)}
        for kind, height in heights.items():
            axes.text(x + 0.03, height, kind, fontsize=8, va="center")
        return [heights[text] for text in texts]
    is_log = domain is not None and domain.kind == "log_uniform"
    scaled = np.log(values) if is_log else np.asarray(values, float)
    known = scaled[np.isfinite(scaled)]  # a trial that failed at once has no figures
    low, high = (known.min(), known.max()) if known.size else (0.0, 1.0)
    for end, va in ((low, "top"), (high, "bottom")):
        height = (end - low) / ((high - low) or 1)
        text = f"{np.exp(end) if is_log else end:.3g}"
        axes.text(x + 0.03, height, text, fontsize=8, va=va)
    return [float(value) for value in (scaled - low) / ((high - low) or 1)]
