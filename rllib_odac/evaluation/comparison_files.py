"""A comparison as text, Markdown and CSV, and the files that `odac compare --out` leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from rllib_odac.evaluation.compare import METRICS, Comparison
from rllib_odac.evaluation.comparison_picture import plot_comparison

STYLES = {"text": "txt", "markdown": "md", "csv": "csv"}  # and the suffix of its file
NONE = "–"


def write_comparison(comparison: Comparison, out: Path) -> list[Path]:
    """Writes compare.txt, compare.md, compare.csv and compare.png.

    Returns:
        The four paths.
    """
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"compare.{suffix}" for suffix in STYLES.values()]
    for path, style in zip(paths, STYLES, strict=True):
        path.write_text(format_comparison(comparison, style))
    picture = out / "compare.png"
    plot_comparison(comparison, picture)
    return [*paths, picture]


def format_comparison(comparison: Comparison, style: str = "text") -> str:
    """The tables of a comparison.

    Args:
        comparison: The comparison.
        style: "text", "markdown", or "csv": one table of plain numbers with a row for each task
            and method, and one for each method over "all" common tasks.

    Raises:
        ValueError: If there is no such style.
    """
    if style not in STYLES:
        raise ValueError(f"format is '{style}', but must be one of {list(STYLES)}.")
    if style == "csv":
        every = comparison.methods.assign(task="all")
        table: str = pd.concat([comparison.tasks, every]).to_csv(index=False, float_format="%.6g")
        return table
    table_of = _markdown if style == "markdown" else _text
    meaning = METRICS[comparison.metric][0]
    parts = [
        f"{_upper(meaning)} at the end of training",
        table_of(_task_table(comparison)),
        "\n".join(_notes(comparison)),
    ]
    if len(comparison.methods):
        parts += ["Over tasks: " + ", ".join(comparison.common_tasks)]
        parts += [table_of(_method_table(comparison))]
    return "\n\n".join(parts) + "\n"


def _task_table(comparison: Comparison) -> list[list[str]]:
    studies, level = comparison.studies, f"{100 * comparison.threshold:g} %"
    has_reference = comparison.tasks["reference_mean"].notna().any()
    header = ["task", "method", "seeds", "mean", "std", "IQM [95 %]"]
    header += [f"steps to {level}", "seconds", "reached"]
    header += [studies.reference_name] if has_reference else []
    lines = [header]
    for row in comparison.tasks.to_dict("records"):
        line = [row["task"], comparison.label(row["method"]), str(row["seeds"])]
        line += [_number(comparison, row["mean"]), _number(comparison, row["std"])]
        line += [_interval(comparison, row)]
        line += [_count(row["steps"]), _count(row["seconds"]), f"{row['reached']}/{row['seeds']}"]
        if has_reference:
            known = pd.notna(row["reference_mean"])
            line += [f"{row['reference_mean']:g} ± {row['reference_std']:g}" if known else NONE]
        lines.append(line)
    return lines


def _method_table(comparison: Comparison) -> list[list[str]]:
    iqm = [] if comparison.mixes_units else ["IQM [95 %]"]
    baseline = comparison.label(comparison.baseline)
    lines = [["method", "runs", *iqm, f"P({baseline} is better) [95 %]"]]
    for row in comparison.methods.to_dict("records"):
        line = [comparison.label(row["method"]), str(row["seeds"])]
        if iqm:
            line += [_interval(comparison, row)]
        bounds = [float(row.get(f"improvement{end}", "nan")) for end in ("", "_low", "_high")]
        line += [NONE if pd.isna(bounds[0]) else "{:.2f} [{:.2f}, {:.2f}]".format(*bounds)]
        lines.append(line)
    return lines


def _notes(comparison: Comparison) -> list[str]:
    studies, metric = comparison.studies, comparison.metric
    notes = [
        "IQM: interquartile mean; intervals: stratified bootstrap over seeds. Steps and seconds: "
        "median over seeds, those that never reach it counting as last. Seconds are those of the "
        "machine and the runs at once that results.csv names."
    ]
    if studies.reference and metric != studies.reference_metric:
        notes.append(
            f"Numbers of the {studies.reference_name} are {studies.reference_metric}: --metric "
            f"{studies.reference_metric} shows them."
        )
    if comparison.left_out:
        notes.append(
            f"Left out of what follows, not all methods having runs of them: "
            f"{', '.join(comparison.left_out)}."
        )
    if comparison.mixes_units:
        notes.append("Distances are of different units: no mean over tasks.")
    return notes


def _text(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    header, *rest = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([header, "|" + "---|" * len(lines[0]), *rest])


def _interval(comparison: Comparison, row: Mapping[Any, Any]) -> str:
    middle, low, high = (_number(comparison, row[name]) for name in ("iqm", "iqm_low", "iqm_high"))
    return f"{middle} [{low}, {high}]"


def _number(comparison: Comparison, value: float) -> str:
    if pd.isna(value):
        return NONE
    shown = METRICS[comparison.metric][1] * value
    return f"{shown:.1f}" if comparison.metric == "success_rate" else f"{shown:.3g}"


def _count(value: float | None) -> str:
    return NONE if value is None or pd.isna(value) else f"{value:,.0f}"


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]
