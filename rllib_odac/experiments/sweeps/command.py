"""The command line of `tune_configs/sweep.py`."""

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
from rllib_odac.experiments.sweeps.results import FILES
from rllib_odac.experiments.sweeps.runner import Sweep, open_storage, run_sweep
from rllib_odac.experiments.sweeps.study import SweepStudy, read_study

STORAGE = "~/odac_sweeps"
FIRST_STUDY = "fetch_reach"  # where neither a study nor an environment is named
ANY_STUDY = "any"  # the space for an environment that has no study

# A smoke test is a sweep of a minute: every part runs, nothing is learned.
SMOKE_TRIALS = 2
SMOKE_STEPS = 600
SMOKE_SETTINGS = {
    "num_envs_per_env_runner": 2,  # so that episodes end, and there is something to learn from
    "num_steps_before_learning": 200,
    "num_initial_random_steps": 200,
}


def sweep(
    context: typer.Context,
    study: Annotated[
        str | None, typer.Option(help="Study file, or its name in tune_configs/sweeps/.")
    ] = None,
    env: Annotated[str | None, typer.Option(help=r"Environment id \[the study's].")] = None,
    objective: Annotated[
        str | None, typer.Option(help=r"odac, her, sac, discern or uvd \[the study's].")
    ] = None,
    trials: Annotated[
        int, typer.Option(help="Configurations; the first is the study's base.")
    ] = Sweep.trials,
    seeds: Annotated[int, typer.Option(help="Seeds of each configuration.")] = Sweep.seeds,
    steps: Annotated[
        int | None, typer.Option(help=r"Environment steps of a trial \[the study's].")
    ] = None,
    scheduler: Annotated[str, typer.Option(help="asha, pbt or none.")] = Sweep.scheduler,
    searcher: Annotated[str, typer.Option(help="random or optuna.")] = Sweep.searcher,
    num_env_runners: Annotated[int, typer.Option(help="Remote env runners of a trial.")] = 0,
    num_learners: Annotated[int, typer.Option(help="Remote learners of a trial.")] = 0,
    num_gpus_per_learner: Annotated[float, typer.Option(help="GPUs of each learner.")] = 0.0,
    storage: Annotated[
        str,
        typer.Option(envvar="ODAC_STORAGE", help="Directory or URI that all nodes can write to."),
    ] = STORAGE,
    name: Annotated[
        str | None, typer.Option(help=r"The sweep's folder in it \[study, objective, scheduler].")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the search, and the first of the trials.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the sweep of that name, if there is one.")
    ] = False,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="A sweep of a minute, to see that everything works.")
    ] = False,
    address: Annotated[
        str | None, typer.Option(help=r"Join this Ray cluster \[start Ray on this machine].")
    ] = None,
    wandb: Annotated[
        str | None, typer.Option(help="Log to this project of Weights & Biases too.")
    ] = None,
    mlflow: Annotated[
        str | None, typer.Option(help="Log to the MLflow at this tracking URI too.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Search ODAC's hyper-parameters with Ray Tune: every trial is a run as `odac train` makes it.

    Results: results.csv, results.parquet, best.json (for `odac train --config`) and report.html.
    """
    with errors_in_one_sentence(debug), quiet_libraries(debug):
        told = {"env": env, "objective": objective, "steps": steps}
        fields = {key: value for key, value in told.items() if value is not None}
        planned, label = _study(context.obj, study, fields)
        if smoke:
            planned = _smoke(planned, keep_steps=steps is not None)
            if not _is_given(context, "trials"):
                trials = SMOKE_TRIALS * (2 if scheduler == "pbt" else 1)
        # Smoke tests do not stand in each other's way.
        suffix = time.strftime("-smoke-%Y%m%d-%H%M%S") if smoke else ""
        asked = Sweep(
            study=planned,
            name=name or f"{label}-{planned.base.objective}-{scheduler}{suffix}",
            storage=storage,
            trials=trials,
            seeds=seeds,
            scheduler=scheduler,
            searcher=searcher,
            resources={
                "num_env_runners": num_env_runners,
                "num_learners": num_learners,
                "num_gpus_per_learner": num_gpus_per_learner,
            },
            seed=seed,
            wandb=wandb,
            mlflow=mlflow,
        )
        # Every mistake that needs no cluster to be seen shows here, before Ray starts.
        wanted = asked.processes()
        folder = open_storage(asked, resume)
        start_ray(wanted, debug, address)
        print(f"{trials * seeds} trials into {folder.uri}", flush=True)
        results = run_sweep(asked, folder, on_trial=_tell, verbose=2 if debug else 0)
        best = results.best
        print(
            f"best of {len(results.configurations)} configurations: success "
            f"{best['success_rate']:.0%}, {planned.metric} {best[planned.metric]:.4g}"
        )
        for file in FILES:
            print(f"{folder.uri}/results/{file}")
        for trial, error in results.failed[["trial", "error"]].itertuples(index=False):
            print(f"error: trial {trial}: {error}", file=sys.stderr)
        if len(results.failed):
            raise typer.Exit(1)


def main(studies: Path, arguments: Sequence[str] | None = None) -> None:
    """Runs the command and exits.

    Args:
        studies: Directory of the study files that have a name.
        arguments: The command line's, by default the process's own.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as `odac` does; read when torch is imported
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(sweep)
    app(arguments, obj=studies)


def _study(studies: Path, told: str | None, fields: dict[str, Any]) -> tuple[SweepStudy, str]:
    """The study that was asked for, and what to call it."""
    if told is None:
        told = ANY_STUDY if "env" in fields else FIRST_STUDY
    path = Path(told) if told.endswith((".yaml", ".yml")) else studies / f"{told}.yaml"
    if not path.is_file():
        known = sorted(file.stem for file in studies.glob("*.yaml"))
        raise ValueError(f"study is '{told}', but must be a .yaml file that exists, or in {known}.")
    return read_study(path, fields), file_name(fields.get("env", path.stem))


def _smoke(study: SweepStudy, keep_steps: bool) -> SweepStudy:
    base = replace(
        study.base,
        steps=study.base.steps if keep_steps else SMOKE_STEPS,
        evaluate_every=SMOKE_STEPS // 3,
        evaluation_episodes=2,
        final_episodes=4,
        settings=study.base.settings | SMOKE_SETTINGS,
    )
    return replace(study, base=base, grace=None)


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _tell(line: str) -> None:
    print(line, flush=True)
