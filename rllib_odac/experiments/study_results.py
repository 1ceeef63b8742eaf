"""The results of a study in a directory; the run directories and their checkpoints lie elsewhere.

study.json                        what was asked for: every run's specification, labels, reference
results.csv                       one row a finished run, in the study's order
curves/TASK-METHOD-SEED.csv       the progress of each
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import pandas as pd

from rllib_odac.experiments.study import Study, StudyRun
from rllib_odac.files import locked, write_json, write_text
from rllib_odac.metrics import FIGURES

MACHINE = ("cpu", "cores", "jobs")  # model, number of cores, runs at once
VERSIONS = ("rllib-odac", "ray", "torch", "python")
ROW_COLUMNS = (
    "task", "method", "seed", "env", "objective", "env_steps", "updates", "wall_s", *FIGURES,
    "evaluation_episodes", *MACHINE, *VERSIONS, "command", "spec",
)  # fmt: skip


class StudyResults:
    """A study's results in their directory; `with` locks it, so that they can be written.

    Args:
        study: The study.
        out: The directory.

    Raises:
        ValueError: If the directory holds results of other runs than the study's.
    """

    def __init__(self, study: Study, out: str | os.PathLike[str]) -> None:
        self.study = study
        self.out = Path(out).absolute()
        self.path = self.out / "results.csv"
        self._runs = {run.key: run for run in study.runs()}
        self._lock = contextlib.ExitStack()
        self.rows = self._read_rows()

    def __enter__(self) -> Self:
        try:
            (self.out / "curves").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"out is '{self.out}', which cannot be made: {error}.") from None
        self._lock.enter_context(locked(self.out / ".lock", f"out '{self.out}'"))
        self.rows = self._read_rows()
        write_json(self.out / "study.json", self._description())
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def missing(self, runs: Iterable[StudyRun]) -> list[StudyRun]:
        """Those of the runs that have no row yet."""
        return [run for run in runs if run.key not in self.rows]

    def add(self, run: StudyRun, summary: Mapping[str, Any], curve: str) -> dict[str, str]:
        """Adds a finished run; whatever order they end in, rows stand in the study's.

        Args:
            run: The run.
            summary: Its summary.json, with the `MACHINE` it was made on.
            curve: The text of its progress.csv.

        Returns:
            The new row.
        """
        row = {**summary, **summary["versions"]}
        row |= {"task": run.task, "method": run.method, "seed": run.spec.seed}
        row |= {"command": run.command, "spec": run.digest}
        self.rows[run.key] = {name: str(row.get(name, "")) for name in ROW_COLUMNS}
        # The curve first: a run with a row has one.
        write_text(self.out / "curves" / f"{run.name}.csv", curve)
        rows = [self.rows[key] for key in self._runs if key in self.rows]
        write_text(self.path, pd.DataFrame(rows, columns=list(ROW_COLUMNS)).to_csv(index=False))
        return self.rows[run.key]

    def _read_rows(self) -> dict[tuple[str, str, int], dict[str, str]]:
        if not self.path.exists():
            return {}
        rows = {}
        # As texts: a number that is written again looks as it did.
        table = pd.read_csv(self.path, dtype=str, keep_default_na=False)
        if not set(ROW_COLUMNS) <= set(table):
            raise ValueError(f"'{self.path}' holds no results of a study.")
        for row in table.to_dict("records"):
            key = row["task"], row["method"], int(row["seed"])
            name = f"'{self.path}' has a row of {row['task']} {row['method']} seed {key[2]}"
            if key not in self._runs:
                raise ValueError(f"{name}, which the study has not; give another --out.")
            if row["spec"] != self._runs[key].digest:
                raise ValueError(f"{name}, which was made with other settings; give another --out.")
            rows[key] = {str(column): text for column, text in row.items()}
        return rows

    def _description(self) -> dict[str, Any]:
        study = self.study
        return {
            "tasks": list(study.tasks),
            "methods": {method: study.labels.get(method, method) for method in study.methods},
            "baseline": study.baseline,
            "reference": study.reference,
            "reference_name": study.reference_name,
            "reference_metric": study.reference_metric,
            "runs": [
                {"task": run.task, "method": run.method, "hash": run.digest}
                | {"command": run.command, "spec": asdict(run.spec)}
                for run in self._runs.values()
            ],
        }
