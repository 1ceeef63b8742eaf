"""The report of a sweep: one HTML file that needs nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from rllib_odac.evaluation.page import Section, Table, render_page, svg
from rllib_odac.experiments.sweeps import pictures
from rllib_odac.experiments.sweeps.importance import MIN_CONFIGURATIONS
from rllib_odac.experiments.sweeps.results import STATUSES
from rllib_odac.metrics import FIGURES

if TYPE_CHECKING:
    from rllib_odac.experiments.sweeps.results import SweepResults

SHOWN = 100  # configurations in the table; all of them are in results.csv
IMPORTANCE_NOTE = (
    "For each hyper-parameter alone: how much of the variance of the ranked metric a parabola in "
    "its ranked values explains (a mean for each value, where they have no order), adjusted for "
    "the number of coefficients, and how often a random order does as well (grey: p ≥ 0.05). "
    "Combinations are not seen; trials that a scheduler ended count with their last figure; with "
    "a searcher or a population, values were not tried evenly."
)


def report(results: SweepResults) -> str:
    """The report as HTML, pictures included."""
    base = results.sweep.spec.base
    sections = [
        Section(
            "Best against default",
            pictures=[svg(pictures.best_against_default(results))],
            table=_settings(results),
            code_text="The best configuration as a run of its own, which best.json holds:",
            code=f"odac train --config best.json\n\n{results.best_json()}",
        ),
        Section(
            "All trials",
            pictures=[svg(pictures.curves(results))],
            note="Each line a trial; the dotted one is the pass threshold. Figures come from "
            f"{base.evaluation_episodes} episodes with held-out goals, a finished trial's last "
            f"ones from {base.final_episodes}.",
        ),
        Section(
            "Hyper-parameters and what came of them",
            pictures=[svg(pictures.parallel_coordinates(results))],
        ),
        _importance(results),
        Section("Configurations", table=_configurations(results)),
    ]
    if len(results.failed):
        failed = results.failed[["trial", "error"]].itertuples(index=False)
        sections.append(Section("Failed", items=[f"trial {t}: {error}" for t, error in failed]))
    return render_page(
        title=f"{results.sweep.name}: {base.objective} on {base.env}",
        lead=_what_ran(results),
        summary=_outcome(results),
        sections=sections,
    )


def _what_ran(results: SweepResults) -> str:
    sweep = results.sweep
    counts = results.trials["status"].value_counts()
    ended = ", ".join(f"{counts[status]} {status}" for status in STATUSES if status in counts)
    return (
        f"{len(results.trials)} trials ({ended}): {len(results.configurations)} configurations, "
        f"{sweep.seeds} seed{'s' if sweep.seeds > 1 else ''} each, at most "
        f"{sweep.spec.base.steps:,} environment steps; "
        f"scheduler {sweep.scheduler}, searcher {sweep.searcher}; "
        f"{results.trials['seconds'].sum() / 60:,.1f} minutes of trials in all."
    )


def _outcome(results: SweepResults) -> str:
    spec, best, default = results.sweep.spec, results.best, results.default
    text = f"Best {spec.metric.replace('_', ' ')}: {_figures(best, spec.metric, ' success')}"
    if default is None:
        text += "; no trial ended with the default settings"
    elif best["is_default"]:
        text += ", with the default settings"
    else:
        text += f"; default {_figures(default, spec.metric)}"
    passed = int(results.configurations["passed"].sum())
    return (
        f"{text}. {passed} of {len(results.configurations)} configurations pass: "
        f"{spec.threshold:.0%} success with every seed."
    )


def _figures(row: pd.Series, metric: str, unit: str = "") -> str:
    text = f"{row[metric]:.4g} at {row['success_rate']:.0%}{unit}"
    if row["status"] == "finished":
        return text
    return f"{text} ({row['status']} after {row['env_steps']} steps)"


def _settings(results: SweepResults) -> Table:
    """Values of best and default side by side."""
    defaults = results.sweep.spec.defaults()
    rows = [[name, _text(results.best[name]), _text(defaults[name])] for name in results.space]
    return Table(rows, head=["setting", "best", "default"])


def _importance(results: SweepResults) -> Section:
    heading = "What mattered"
    if results.importances.empty:
        return Section(
            heading,
            note=f"Not estimated: that takes {MIN_CONFIGURATIONS} configurations with different "
            "figures at least.",
        )
    picture = svg(pictures.importance_bars(results))
    return Section(heading, pictures=[picture], note=IMPORTANCE_NOTE)


def _configurations(results: SweepResults) -> Table:
    table = results.configurations.head(SHOWN)
    columns = ["configuration", *results.space, *FIGURES, "env_steps", "status", "passed"]
    return Table(
        rows=[[_text(row[name]) for name in columns] for _, row in table.iterrows()],
        head=["#", *(name.replace("_", " ") for name in columns[1:])],
        kinds=["best", *("default" if default else "" for default in table["is_default"][1:])],
    )


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "yes" if value is True else "no" if value is False else str(value)
