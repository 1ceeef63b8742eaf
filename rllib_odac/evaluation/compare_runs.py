"""Runs, and trials of sweeps, as rows of a comparison, beside those of studies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from rllib_odac.declarations import shown
from rllib_odac.metrics import FIGURES


@dataclass
class _Run:
    directory: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    curve: pd.DataFrame

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the result, besides task, method and seed."""
        wanted = ("steps", "num_env_runners", "num_learners")
        return {**self.config["settings"], **{name: self.config[name] for name in wanted}}


def is_run(directory: Path) -> bool:
    """Whether it is the directory of a run."""
    return (directory / "config.json").is_file()


def is_sweep(directory: Path) -> bool:
    """Whether it is the directory of a sweep."""
    return (directory / "sweep.json").is_file()


def read_curve(path: Path) -> pd.DataFrame:
    """Rows of progress that have figures.

    Where a log was all there was, updates stand for the environment steps that there are none of.
    """
    rows = pd.read_csv(path).dropna(subset=["success_rate"])
    if "updates" in rows and (rows["env_steps"] == 0).all():
        rows["env_steps"] = rows["updates"]
    return rows


def read_runs(
    directories: Sequence[Path],
) -> tuple[pd.DataFrame, dict[tuple[str, str, int], pd.DataFrame]]:
    """Rows and curves of finished runs, by environment, method and seed.

    Those of a sweep are its trials that came to their end. Runs of one objective whose settings
    differ are different methods, called by what differs.

    Raises:
        ValueError: If a run has not finished or cannot be read, or two are the same.
    """
    runs: list[_Run] = []
    for directory in directories:
        runs += _read_sweep(directory) if is_sweep(directory) else [_read(directory)]
    rows, curves = [], {}
    for run in runs:
        alike = [
            other.settings
            for other in runs
            if all(other.config[name] == run.config[name] for name in ("env", "objective"))
        ]
        task, method = run.config["env"], _method(run, alike)
        key = task, method, int(run.config["seed"])
        if key in curves:
            raise ValueError(
                f"'{run.directory}' has {method} on {task}, seed {key[2]}, which another directory "
                "has too."
            )
        curves[key] = run.curve
        rows.append(run.summary | {"task": task, "method": method, "seed": key[2]})
    return pd.DataFrame(rows), curves


def _read(directory: Path) -> _Run:
    try:
        config = json.loads((directory / "config.json").read_text())
        curve = read_curve(directory / "progress.csv")
    except (OSError, ValueError) as error:
        raise ValueError(f"The run in '{directory}' cannot be read: {error}.") from None
    try:
        summary = json.loads((directory / "summary.json").read_text())
    except (OSError, ValueError):
        raise ValueError(
            f"The run in '{directory}' has not finished; go on with: odac train --out {directory} "
            "--resume"
        ) from None
    return _Run(directory, config, summary, curve)


def _read_sweep(directory: Path) -> list[_Run]:
    try:
        asked = json.loads((directory / "sweep.json").read_text())
        trials = pd.read_csv(directory / "results" / "results.csv", float_precision="round_trip")
    except (OSError, ValueError):
        raise ValueError(
            f"The sweep in '{directory}' has no results yet; go on with: odac sweep --resume"
        ) from None
    base, space = asked["study"]["base"], asked["study"]["space"]
    runs = []
    for trial in trials[trials["status"] == "finished"].to_dict("records"):
        place = directory / f"trial_{trial['trial']}"
        drawn = {name: _plain(trial[name]) for name in space}
        config = base | asked["resources"] | {"seed": trial["seed"]}
        config["settings"] = base["settings"] | drawn
        summary = {name: base[name] for name in ("env", "objective")} | {"wall_s": trial["seconds"]}
        summary |= {name: trial[name] for name in ("env_steps", "updates", *FIGURES)}
        try:
            curve = read_curve(place / "progress.csv")
        except (OSError, ValueError) as error:
            raise ValueError(f"The trial in '{place}' cannot be read: {error}.") from None
        curve = curve.rename(columns={"time_total_s": "wall_s"})
        runs.append(_Run(place, config, summary, curve))
    if not runs:
        raise ValueError(f"The sweep in '{directory}' has no trial that came to its end.")
    return runs


def _plain(value: Any) -> Any:
    """A hyper-parameter as settings have it: lists and words are texts in a table."""
    return json.loads(value) if isinstance(value, str) else value


def _method(run: _Run, alike: Sequence[Mapping[str, Any]]) -> str:
    names = dict.fromkeys(name for settings in alike for name in settings)
    missing = object()
    differing = [
        name
        for name in names
        if any(other.get(name, missing) != run.settings.get(name, missing) for other in alike)
    ]
    texts = [f"{n}={shown(run.settings[n])}" for n in differing if n in run.settings]
    defaults = [f"{n} left out" for n in differing if n not in run.settings]
    return " ".join([run.config["objective"], *texts, *defaults])
