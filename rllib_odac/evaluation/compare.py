"""Methods compared over the results of studies: what `odac compare` shows."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rllib_odac.evaluation.compare_runs import is_run, is_sweep, read_curve, read_runs
from rllib_odac.evaluation.statistics import (
    Array,
    bootstrap_interval,
    interquartile_mean,
    median_time,
    probability_of_improvement,
)
from rllib_odac.metrics import FIGURES

# Of each metric: its meaning, the factor it is shown with, and whether more is better.
METRICS = {
    "success_rate": ("success on held-out goals (%)", 100, True),
    "final_distance": ("final distance to the goal (task's unit)", 1, False),
    "normalized_distance": ("final distance (% of the initial one)", 1, False),
}


@dataclass
class StudiesRead:
    """Results of one or more studies.

    Attributes:
        rows: One row a run, as results.csv has them, the studies one after another.
        curves: By task, method and seed, the rows of progress.
        labels: By method, the text that stands for it.
        reference: By task and method, mean and standard deviation published elsewhere.
        reference_name: Where that is.
        reference_metric: What it measures.
        baseline: The method that the others are compared with.
    """

    rows: pd.DataFrame
    curves: dict[tuple[str, str, int], pd.DataFrame]
    labels: dict[str, str]
    reference: dict[str, dict[str, tuple[float, float]]]
    reference_name: str
    reference_metric: str
    baseline: str


def read_studies(directories: Sequence[str | os.PathLike[str]]) -> StudiesRead:
    """Reads the results of studies, runs and sweeps; labels and the like are the first study's.

    Raises:
        ValueError: If a directory holds no results, or two hold the same run.
    """
    places = [Path(directory) for directory in directories]
    no_studies = [place for place in places if is_run(place) or is_sweep(place)]
    own, curves = read_runs(no_studies)
    parts, studies = ([own] if len(own) else []), []
    for directory in (place for place in places if place not in no_studies):
        try:
            studies.append(json.loads((directory / "study.json").read_text()))
            rows = pd.read_csv(
                directory / "results.csv",
                dtype={"task": str, "method": str},  # whatever they are called, "none" even
                keep_default_na=False,
                na_values=[""],
                float_precision="round_trip",
            )
        except (OSError, ValueError) as error:
            raise ValueError(
                f"'{directory}' holds no run, no sweep and no results of a study: {error}."
            ) from None
        for task, method, seed in zip(rows["task"], rows["method"], rows["seed"], strict=True):
            name = f"{task}-{method}-{seed}"
            if (task, method, seed) in curves:
                raise ValueError(f"'{directory}' has {name}, which another directory has too.")
            path = directory / "curves" / f"{name}.csv"
            try:
                curves[task, method, int(seed)] = read_curve(path)
            except (OSError, ValueError) as error:
                raise ValueError(f"'{path}' cannot be read: {error}.") from None
        parts.append(rows)
    merged = pd.concat(parts, ignore_index=True)
    if merged.groupby("task")["env"].nunique().max() > 1:
        raise ValueError("A task is another environment in one study than in another.")
    methods = list(dict.fromkeys(own["method"])) if len(own) else []
    runs = {
        "methods": {method: method for method in methods},
        "reference": {},
        "reference_name": "",
        "reference_metric": "normalized_distance",
        "baseline": methods[0] if methods else None,
    }
    studies = [*studies, runs]
    with_reference = [study for study in studies if study["reference"]] or studies
    return StudiesRead(
        rows=merged,
        curves=curves,
        labels={
            method: label
            for study in reversed(studies)
            for method, label in study["methods"].items()
        },
        reference=with_reference[0]["reference"],
        reference_name=with_reference[0]["reference_name"],
        reference_metric=with_reference[0]["reference_metric"],
        baseline=studies[0]["baseline"],
    )


class Comparison:
    """Tables over tasks and methods, each statistic with its 95 % stratified-bootstrap interval.

    Args:
        studies: What to compare.
        metric: A figure of the end of training, a key of `METRICS`.
        threshold: Success rate in (0, 1] whose first time is told.
        baseline: The method that the others are compared with; by default the studies' own.
        curve: Column of progress whose course the picture shows.

    Attributes:
        tasks: One row for each task and method: seeds, mean, std, interquartile mean `iqm` with
            its interval, the median over seeds of environment steps and seconds to the threshold,
            how many seeds `reached` it, and the reference's mean and standard deviation.
        methods: One row a method over `common_tasks`: iqm with its interval and `improvement`, the
            probability that a run of the baseline is better than one of the method.
        common_tasks: The tasks of which every method has runs.
        left_out: The others.

    Raises:
        ValueError: If an argument makes no sense.
    """

    def __init__(
        self,
        studies: StudiesRead,
        metric: str = "success_rate",
        threshold: float = 0.9,
        baseline: str | None = None,
        curve: str = "success_rate",
    ) -> None:
        rows = studies.rows
        if metric not in FIGURES:
            raise ValueError(f"metric is '{metric}', but must be one of {list(FIGURES)}.")
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold is {threshold}, but must be in (0, 1].")
        present = set(rows["method"])
        self.method_names = [method for method in studies.labels if method in present]
        if baseline is not None and baseline not in present:
            raise ValueError(f"baseline is '{baseline}', but must be one of {self.method_names}.")
        if baseline is None:
            own = studies.baseline
            baseline = own if own in present else self.method_names[0]
        drawable = set.intersection(*(set(run.columns) for run in studies.curves.values()))
        drawable.discard("env_steps")
        if curve not in drawable:
            raise ValueError(f"curve is '{curve}', but must be one of {sorted(drawable)}.")
        self.curve = curve
        self.studies = studies
        self.metric = metric
        self.threshold = threshold
        self.baseline = baseline
        self.task_names = list(dict.fromkeys(rows["task"]))
        self._scores = {
            (str(task), str(method)): part[metric].to_numpy(float)
            for (task, method), part in rows.groupby(["task", "method"])
        }
        self.common_tasks = [
            task
            for task in self.task_names
            if all((task, method) in self._scores for method in self.method_names)
        ]
        self.left_out = [task for task in self.task_names if task not in self.common_tasks]
        self.tasks = pd.DataFrame(
            [
                self._task_row(task, method)
                for task in self.task_names
                for method in self.method_names
                if (task, method) in self._scores
            ]
        )
        self.methods = pd.DataFrame(
            [self._method_row(method) for method in self.method_names if self.common_tasks]
        )

    @property
    def mixes_units(self) -> bool:
        """Whether the metric's values are of different units, which no mean over tasks may mix."""
        return self.metric == "final_distance" and len(self.common_tasks) > 1

    def label(self, method: str) -> str:
        """The text that stands for a method."""
        return self.studies.labels[method]

    def scores(self, method: str) -> list[Array]:
        """For each of the common tasks the (N,) results of a method."""
        return [self._scores[task, method] for task in self.common_tasks]

    def _task_row(self, task: str, method: str) -> dict[str, Any]:
        scores = self._scores[task, method]
        low, high = bootstrap_interval(interquartile_mean, [scores])
        runs = [run for key, run in self.studies.curves.items() if key[:2] == (task, method)]
        steps = [_first(run, "env_steps", self.threshold) for run in runs]
        seconds = [_first(run, "wall_s", self.threshold) for run in runs]
        published = self.studies.reference.get(task, {}).get(method)
        if self.metric != self.studies.reference_metric or published is None:
            published = (np.nan, np.nan)
        return {
            **{"task": task, "method": method, "seeds": len(scores)},
            **{"mean": scores.mean(), "std": scores.std(ddof=1) if len(scores) > 1 else np.nan},
            **{"iqm": interquartile_mean([scores]), "iqm_low": low, "iqm_high": high},
            **{"steps": median_time(steps), "seconds": median_time(seconds)},
            "reached": sum(step is not None for step in steps),
            **{"reference_mean": published[0], "reference_std": published[1]},
        }

    def _method_row(self, method: str) -> dict[str, Any]:
        scores = self.scores(method)
        row: dict[str, Any] = {
            "method": method,
            "tasks": len(scores),
            "seeds": sum(map(len, scores)),
        }
        if not self.mixes_units:
            low, high = bootstrap_interval(interquartile_mean, scores)
            row |= {"iqm": interquartile_mean(scores), "iqm_low": low, "iqm_high": high}
        if method != self.baseline:
            pair = self._better(self.baseline), self._better(method)
            low, high = bootstrap_interval(probability_of_improvement, *pair)
            row |= {"improvement": probability_of_improvement(*pair)}
            row |= {"improvement_low": low, "improvement_high": high}
        return row

    def _better(self, method: str) -> list[Array]:
        """Scores of which more is better."""
        sign = 1 if METRICS[self.metric][2] else -1
        return [sign * runs for runs in self.scores(method)]


def _first(run: pd.DataFrame, column: str, success: float) -> float | None:
    """A column's value in the first row of progress that succeeds so often."""
    reached = run.loc[run["success_rate"] >= success, column]
    return float(reached.iloc[0]) if len(reached) else None
