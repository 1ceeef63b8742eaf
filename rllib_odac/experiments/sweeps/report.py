"""The report of a sweep: one HTML file that needs nothing else."""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING, Any

import pandas as pd

from rllib_odac.experiments.run import FIGURES
from rllib_odac.experiments.spec_files import changed_fields
from rllib_odac.experiments.sweeps import pictures
from rllib_odac.experiments.sweeps.importance import MIN_CONFIGURATIONS

if TYPE_CHECKING:
    from rllib_odac.experiments.sweeps.results import SweepResults

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #0f172a; max-width: 1040px; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
svg { max-width: 100%; height: auto; } .wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #e2e8f0; }
th { border-bottom: 2px solid #94a3b8; } td:first-child, th:first-child { text-align: left; }
tr.best td { background: #fff7ed; } tr.default td { background: #eff6ff; }
pre { background: #f1f5f9; padding: .7rem 1rem; overflow-x: auto; border-radius: 4px; }
.note { color: #475569; } .big { font-size: 1.15rem; }
"""
SHOWN = 100  # configurations in the table; all of them are in results.csv


def report(results: SweepResults) -> str:
    """The report as HTML, pictures and all in one file."""
    study = results.sweep.study
    base = study.base
    title = f"{results.sweep.name}: {base.objective} on {base.env}"
    sections = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="note">{escape(_what_ran(results))}</p>',
        f'<p class="big">{escape(_verdict(results))}</p>',
        "<h2>Best against default</h2>",
        pictures.best_against_default(results),
        f'<div class="wide">{_settings_table(results)}</div>',
        "<p>The best configuration as a run of its own, which <code>best.json</code> holds:</p>",
        f"<pre>odac train --config best.json\n\n{escape(_best_json(results))}</pre>",
        "<h2>All trials</h2>",
        pictures.curves(results),
        '<p class="note">Each line a trial; the dotted one is the pass threshold. Figures come '
        f"from {base.evaluation_episodes} episodes with held-out goals, a finished trial's last "
        f"ones from {base.final_episodes}.</p>",
        "<h2>Hyper-parameters and what came of them</h2>",
        f'<div class="wide">{pictures.parallel_coordinates(results)}</div>',
        "<h2>What mattered</h2>",
        _importance(results),
        "<h2>Configurations</h2>",
        f'<div class="wide">{_table(results)}</div>',
    ]
    if len(results.failed):
        sections += ["<h2>Failed</h2>", _failed(results)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(sections)
        + "\n</body></html>\n"
    )


def _what_ran(results: SweepResults) -> str:
    counts = results.trials["status"].value_counts()
    ended = ", ".join(f"{counts[s]} {s}" for s in ("finished", "stopped", "failed") if s in counts)
    sweep = results.sweep
    seconds = results.trials["seconds"].sum()
    return (
        f"{len(results.trials)} trials ({ended}): {len(results.configurations)} configurations, "
        f"{sweep.seeds} seed{'s' if sweep.seeds > 1 else ''} each, at most "
        f"{sweep.study.base.steps:,} environment steps; "
        f"scheduler {sweep.scheduler}, searcher {sweep.searcher}; "
        f"{seconds / 60:,.1f} minutes of trials in all."
    )


def _verdict(results: SweepResults) -> str:
    study, best, default = results.sweep.study, results.best, results.default
    name = study.metric.replace("_", " ")
    text = f"Best {name}: {best[study.metric]:.4g} at {best['success_rate']:.0%} success"
    if best["status"] != "finished":
        text += f" ({best['status']} after {best['env_steps']} steps)"
    if default is None:
        text += "; no trial ended with the default settings"
    elif best["is_default"]:
        text += ", with the default settings"
    else:
        text += f"; default {default[study.metric]:.4g} at {default['success_rate']:.0%}"
        if default["status"] != "finished":
            text += f" ({default['status']} after {default['env_steps']} steps)"
    passed = int(results.configurations["passed"].sum())
    return (
        f"{text}. {passed} of {len(results.configurations)} configurations pass: "
        f"{study.threshold:.0%} success with every seed."
    )


def _best_json(results: SweepResults) -> str:
    told = {"env": results.sweep.study.base.env} | changed_fields(results.best_spec())
    return json.dumps(told, indent=2, default=lambda value: value.item())


def _settings_table(results: SweepResults) -> str:
    """Values of best and default side by side."""
    defaults = results.sweep.study.defaults()
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{_text(results.best[name])}</td>"
        f"<td>{_text(defaults[name])}</td></tr>"
        for name in results.space
    )
    return f"<table><tr><th>setting</th><th>best</th><th>default</th></tr>{rows}</table>"


def _importance(results: SweepResults) -> str:
    table = results.importances
    if table.empty:
        return (
            f'<p class="note">Not estimated: that takes {MIN_CONFIGURATIONS} configurations with '
            "different figures at least.</p>"
        )
    return pictures.importance_bars(results) + (
        '<p class="note">For each hyper-parameter alone: how much of the variance of the ranked '
        "metric a parabola in its ranked values explains (a mean for each value, where they have "
        "no order), adjusted for the number of coefficients, and how often a random order does as "
        "well (grey: p ≥ 0.05). Combinations are not seen; trials that a scheduler ended count "
        "with their last figure; with a searcher or a population, values were not tried evenly.</p>"
    )


def _table(results: SweepResults) -> str:
    table = results.configurations.head(SHOWN)
    columns = ["configuration", *results.space, *FIGURES, "env_steps", "status", "passed"]
    titles = ["#", *(name.replace("_", " ") for name in columns[1:])]
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    rows = []
    for place, (_, row) in enumerate(table.iterrows()):
        kind = "best" if place == 0 else "default" if row["is_default"] else ""
        cells = "".join(f"<td>{_text(row[name])}</td>" for name in columns)
        rows.append(f'<tr class="{kind}">{cells}</tr>')
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def _failed(results: SweepResults) -> str:
    rows: pd.DataFrame = results.failed
    items = "".join(
        f"<li>trial {escape(str(trial))}: {escape(str(error))}</li>"
        for trial, error in zip(rows["trial"], rows["error"], strict=True)
    )
    return f"<ul>{items}</ul>"


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return escape("yes" if value is True else "no" if value is False else str(value))
