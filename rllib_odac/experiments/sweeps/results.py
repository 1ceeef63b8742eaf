"""The results of a sweep: a row a trial, configurations ranked, and the files written of them."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from rllib_odac.experiments.sweeps.importance import importances
from rllib_odac.experiments.sweeps.space import initial
from rllib_odac.files import write_text
from rllib_odac.metrics import FIGURES

if TYPE_CHECKING:
    from rllib_odac.experiments.spec import RunSpec
    from rllib_odac.experiments.sweeps.sweep import Sweep

CURVE_COLUMNS = ("env_steps", "updates", *FIGURES, "time_total_s")
STATUSES = ("finished", "stopped", "failed")  # "stopped" by the scheduler; from best to worst
FILES = ("report.html", "best.json", "results.csv", "results.parquet")


@dataclass
class SweepResults:
    """The results of a sweep.

    Attributes:
        sweep: The sweep.
        trials: One row a trial: `trial`, `configuration` (numbered as tried first), `seed`,
            `status` (of `STATUSES`), the hyper-parameters, the last figures, `passed`,
            `env_steps`, `updates`, `seconds`, `checkpoint`, `error`.
        curves: By trial, its figures at each evaluation.
    """

    sweep: Sweep
    trials: pd.DataFrame
    curves: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    @classmethod
    def of(cls, grid: Any, sweep: Sweep) -> SweepResults:
        """The results in Ray Tune's `ResultGrid`."""
        rows, curves = [], {}
        for result in sorted(grid, key=functools.partial(_place, sweep)):
            row = _row(result, sweep)
            rows.append(row)
            frame = result.metrics_dataframe
            if frame is not None and len(frame):
                curves[row["trial"]] = frame[[c for c in CURVE_COLUMNS if c in frame]]
        trials = pd.DataFrame(rows)
        values = trials[list(sweep.spec.space)].map(json.dumps).agg(" ".join, axis=1)
        trials.insert(1, "configuration", pd.factorize(values)[0])
        return cls(sweep, trials, curves)

    @property
    def space(self) -> list[str]:
        """Names of the hyper-parameters."""
        return list(self.sweep.spec.space)

    @property
    def failed(self) -> pd.DataFrame:
        """Trials that failed for good."""
        return self.trials[self.trials["status"] == "failed"]

    @functools.cached_property
    def configurations(self) -> pd.DataFrame:
        """One row a configuration, the best first.

        Those that all seeds took to the end come before those that a scheduler ended, which come
        before those that failed; then the mean of the metric over seeds decides.
        """
        metric, rows = self.sweep.spec.metric, []
        defaults = _as_json(self.sweep.spec.defaults())
        for number, group in self.trials.groupby("configuration"):
            values = {name: group[name].iloc[0] for name in self.space}
            rows.append(
                {
                    "configuration": number,
                    "is_default": _as_json(values) == defaults,
                    **values,
                    "seeds": len(group),
                    "status": max(group["status"], key=STATUSES.index),
                    **{name: group[name].mean() for name in FIGURES},
                    f"{metric}_std": group[metric].std(),
                    "env_steps": int(group["env_steps"].min()),
                    "passed": bool(group["passed"].all()),
                }
            )
        table = pd.DataFrame(rows)
        table["status"] = pd.Categorical(table["status"], STATUSES, ordered=True)
        table = table.sort_values(
            ["status", metric],
            ascending=[True, self.sweep.spec.mode == "min"],
            kind="stable",
            ignore_index=True,
        )
        return table.astype({"status": str})

    @property
    def best(self) -> pd.Series:
        """The best configuration."""
        return self.configurations.iloc[0]

    @property
    def default(self) -> pd.Series | None:
        """The base's own configuration, if it was tried."""
        table = self.configurations
        found = table[table["is_default"]]
        return found.iloc[0] if len(found) else None

    @functools.cached_property
    def importances(self) -> pd.DataFrame:
        """What each hyper-parameter explains of the metric; see `importance.importances`."""
        spec = self.sweep.spec
        table = self.configurations.sort_values("configuration")
        numeric = [name for name, domain in spec.space.items() if domain.is_numeric]
        values = table[self.space].copy()
        for name in numeric:  # the base may have a schedule
            values[name] = values[name].map(initial)
        return importances(values, table[spec.metric].tolist(), numeric)

    def best_spec(self) -> RunSpec:
        """The run of the best configuration."""
        return self.sweep.spec.run_spec({name: self.best[name] for name in self.space})

    def best_json(self) -> str:
        """That run as `odac train --config` takes it."""
        fields = {"env": self.sweep.spec.base.env} | self.best_spec().changed_fields()
        return json.dumps(fields, indent=2, default=_plain)

    def write(self, out: Path) -> None:
        """Writes all `FILES` but the report into a directory."""
        table = self.trials.copy()
        for name in self.space:  # lists as texts: a column has one type
            if not self.sweep.spec.space[name].is_numeric or table[name].dtype == object:
                table[name] = table[name].map(json.dumps)
        table.to_csv(out / "results.csv", index=False)
        table.to_parquet(out / "results.parquet", index=False)
        write_text(out / "best.json", self.best_json() + "\n")


def _place(sweep: Sweep, result: Any) -> Any:
    """Where a trial is in the order that trials were made in, which a resumed sweep has lost."""
    if sweep.searcher == "random":  # Tune numbers them; members of a population change their config
        return _trial_id(result)
    return result.config["configuration"], result.config["seed"]


def _trial_id(result: Any) -> str:
    return (result.metrics or {}).get("trial_id") or Path(result.path).name.removeprefix("trial_")


def _row(result: Any, sweep: Sweep) -> dict[str, Any]:
    metrics = result.metrics or {}
    success = metrics.get("success_rate", float("nan"))
    finished = bool(metrics.get("finished"))
    status = "finished" if finished else "failed" if result.error is not None else "stopped"
    error = "" if result.error is None else str(result.error).strip().splitlines()[-1]
    return {
        "trial": _trial_id(result),
        "seed": result.config["seed"],
        "status": status,
        **{name: result.config[name] for name in sweep.spec.space},
        **{name: metrics.get(name, float("nan")) for name in FIGURES},
        "passed": finished and success >= sweep.spec.threshold,
        "env_steps": int(metrics.get("env_steps", 0)),
        "updates": int(metrics.get("updates", 0)),
        "iterations": int(metrics.get("training_iteration", 0)),
        "seconds": round(float(metrics.get("time_total_s", 0.0)), 1),
        "checkpoint": result.checkpoint.path if result.checkpoint else "",
        "error": error,
    }


def _as_json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True, default=_plain)


def _plain(value: Any) -> Any:
    """A NumPy number as Python's."""
    return value.item()
