"""`odac sweep`, which `tune_configs/sweep.py` is too."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from rllib_odac.cli.common import (
    Debug,
    errors_in_one_sentence,
    file_name,
    quiet_libraries,
    start_ray,
)
from rllib_odac.cli.options import field_options, takes
from rllib_odac.declarations import declarations
from rllib_odac.experiments.spec import RunSpec
from rllib_odac.experiments.sweeps.spec import SweepSpec, read_sweep_spec
from rllib_odac.experiments.sweeps.sweep import Sweep, check_storage, run_sweep
from rllib_odac.runtime.cluster import check_python_path
from rllib_odac.tuned import SWEEPS

DEFAULT_STUDY = "fetch_reach"  # if neither a study nor an environment is given
ANY_STUDY = "any"  # the space for an environment that has no study

# A smoke test is a sweep of a minute: every part runs, nothing is learned.
SMOKE_TRIALS = 2
SMOKE_STEPS = 600
SMOKE_SETTINGS = {
    "num_envs_per_env_runner": 2,  # so that episodes end, and there is something to learn from
    "num_steps_before_learning": 200,
    "num_initial_random_steps": 200,
}


RUN_FIELDS = ("env", "objective", "steps")
SWEEP_FIELDS = [name for name in declarations(Sweep) if name not in ("spec", "storage")]


@takes(field_options(RunSpec, RUN_FIELDS) + field_options(Sweep, SWEEP_FIELDS))
def sweep(
    *,
    study: Annotated[
        str | None, typer.Option(help="Study file, or the name of one of ours.")
    ] = None,
    storage: Annotated[
        str,
        typer.Option(envvar="ODAC_STORAGE", help="Directory or URI that all nodes can write to."),
    ] = "~/odac_sweeps",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the sweep of that name, if there is one.")
    ] = False,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="A sweep of a minute, to see that everything works.")
    ] = False,
    address: Annotated[
        str | None, typer.Option(help=r"Join this Ray cluster \[start Ray on this machine].")
    ] = None,
    debug: Debug = False,
    **fields: Any,
) -> None:
    """Search ODAC's hyper-parameters with Ray Tune: every trial is a run as `odac train` makes it.

    Environment, objective and steps are the study's unless they are given, and the name is made of
    study, objective and scheduler. Results: results.csv, results.parquet, best.json (for
    `odac train --config`) and report.html.
    """
    with errors_in_one_sentence(debug), quiet_libraries(debug):
        from rllib_odac.experiments.sweeps.results import FILES

        given = {name: value for name, value in fields.items() if value is not None}
        run_fields = {name: given.pop(name) for name in RUN_FIELDS if name in given}
        path = _study_file(study, has_env="env" in run_fields)
        spec = read_sweep_spec(path, run_fields)
        scheduler = given.get("scheduler", Sweep.scheduler)
        name = f"{file_name(run_fields.get('env', path.stem))}-{spec.base.objective}-{scheduler}"
        if smoke:
            spec = _smoke(spec, keep_steps="steps" in run_fields)
            given.setdefault("trials", SMOKE_TRIALS * (2 if scheduler == "pbt" else 1))
            name += time.strftime("-smoke-%Y%m%d-%H%M%S")  # unique
        planned = Sweep(spec=spec, storage=storage, **{"name": name} | given)
        # Every mistake that needs no cluster to be seen shows here, before Ray starts.
        wanted = planned.processes()
        check_python_path()
        check_storage(planned, resume)
        start_ray(wanted, debug, address)
        _print(f"{planned.trials * planned.seeds} trials into {planned.uri}")
        results = run_sweep(planned, on_trial=_print, verbose=2 if debug else 0)
        best = results.best
        print(
            f"best of {len(results.configurations)} configurations: success "
            f"{best['success_rate']:.0%}, {spec.metric} {best[spec.metric]:.4g}"
        )
        for file in FILES:
            print(f"{planned.uri}/results/{file}")
        for trial, error in results.failed[["trial", "error"]].itertuples(index=False):
            print(f"error: trial {trial}: {error}", file=sys.stderr)
        if len(results.failed):
            raise typer.Exit(1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command and exits.

    Args:
        arguments: The command line's, by default the process's own.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as `odac` does; read when torch is imported
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(sweep)
    app(arguments)


def _study_file(given: str | None, has_env: bool) -> Path:
    """The file of a study given by its path or by its name in `rllib_odac/tuned/sweeps`."""
    if given is None:
        given = ANY_STUDY if has_env else DEFAULT_STUDY
    path = Path(given) if given.endswith((".yaml", ".yml")) else SWEEPS / f"{given}.yaml"
    if not path.is_file():
        known = sorted(file.stem for file in SWEEPS.glob("*.yaml"))
        raise ValueError(
            f"study is '{given}', but must be a .yaml file that exists, or in {known}."
        )
    return path


def _smoke(spec: SweepSpec, keep_steps: bool) -> SweepSpec:
    base = replace(
        spec.base,
        steps=spec.base.steps if keep_steps else SMOKE_STEPS,
        evaluate_every=SMOKE_STEPS // 3,
        evaluation_episodes=2,
        final_episodes=4,
        settings=spec.base.settings | SMOKE_SETTINGS,
    )
    return replace(spec, base=base, grace=None)


def _print(line: str) -> None:
    print(line, flush=True)
