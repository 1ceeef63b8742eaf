"""`odac train` and `odac evaluate`."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rllib_odac.cli.common import (
    Debug,
    Trust,
    errors_in_one_sentence,
    file_name,
    parse_settings,
    quiet_libraries,
    start_ray,
)
from rllib_odac.cli.options import field_options, takes
from rllib_odac.cli.signals import stopping_on_signals
from rllib_odac.declarations import declarations
from rllib_odac.experiments.spec import RunSpec, read_spec
from rllib_odac.runtime.faults import InterruptedRun
from rllib_odac.storage import Storage
from rllib_odac.tuned import tuned_fields

if TYPE_CHECKING:
    from rllib_odac.experiments.run import Run


RUN_FIELDS = [name for name in declarations(RunSpec) if name not in ("settings", "begin_from")]


@takes(field_options(RunSpec, RUN_FIELDS, arguments=["env"]))
def train(
    *,
    config: Annotated[
        str | None,
        typer.Option(help="A run's fields as JSON, such as a run's own config.json."),
    ] = None,
    out: Annotated[
        str | None, typer.Option(help=r"Run directory, or its URI \[runs/ENV-OBJECTIVE-TIME].")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting, as name=value; `odac settings` explains them."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Log whose episodes the replay begins with; without an environment all there is."
        ),
    ] = None,
    begin_from: Annotated[
        str | None,
        typer.Option("--from", help="Begin with the networks of this checkpoint, or run."),
    ] = None,
    evaluate_in: Annotated[
        str | None,
        typer.Option("--evaluate-in", help="Learn from --data alone, and evaluate here."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help=r"Join this Ray cluster \[start Ray on this machine].")
    ] = None,
    untuned: Annotated[
        bool, typer.Option("--untuned", help="Leave out settings tuned for this environment.")
    ] = False,
    wandb: Annotated[
        str | None, typer.Option(help="Project of Weights & Biases to log to.")
    ] = None,
    mlflow: Annotated[str | None, typer.Option(help="Experiment of MLflow to log to.")] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on from the newest checkpoint in --out."),
    ] = False,
    debug: Debug = False,
    **fields: Any,
) -> None:
    """Train, evaluate as it goes, and write a run directory.

    What the command line says comes before what --config says. Without one, an environment's tuned
    settings are where a run begins.
    """
    from rllib_odac.experiments.run import Run

    with errors_in_one_sentence(debug):
        given = {name: value for name, value in fields.items() if value is not None}
        fields = _fields_to_begin_with(config, out if resume else None, untuned, given) | given
        fields["settings"] = fields.get("settings", {}) | parse_settings(settings or [])
        if data is not None:
            fields["settings"]["data"] = data
        if begin_from is not None:
            fields["begin_from"] = begin_from
        if "env" not in fields and "data" not in fields["settings"]:
            raise ValueError(
                "train needs an environment, its id or a --config that names one, or --data, a log "
                "to learn from alone."
            )
        if evaluate_in is not None or "env" not in fields:
            fields["settings"].setdefault("offline", True)
            fields.setdefault("env", evaluate_in)
        spec = RunSpec(**fields)
        if out is None:
            if resume:
                raise ValueError("resume needs --out, the directory of the run to go on with.")
            name = (
                f"{file_name(spec.env or 'log')}-{spec.objective}-{time.strftime('%Y%m%d-%H%M%S')}"
            )
            out = f"runs/{name}"
        is_offline = bool(spec.settings.get("offline"))
        reporter = _Reporter(spec.steps, "updates" if is_offline else "env_steps")
        with quiet_libraries(debug):
            # Every mistake that needs no cluster to be seen shows here, before Ray starts.
            run = Run(spec, out, resume, on_row=reporter.row, wandb=wandb, mlflow=mlflow)
            if run.summary_if_finished is not None:
                print(f"The run in {run.out} has finished already.")
                return
            # Where no learner is remote, this process learns; else it waits for the others.
            busy = spec.num_env_runners + max(1, spec.num_learners)
            with stopping_on_signals(run.stop) as stopping:
                start_ray(run.processes, debug, address, busy)
                stopping.install()
                try:
                    with reporter:
                        summary = run.train()
                except Exception as error:
                    if run.steps_saved:
                        _say_how_to_go_on(run, address)
                    if isinstance(error, InterruptedRun):
                        raise typer.Exit(stopping.exit_code) from None
                    raise
        made = f"{summary['updates']} updates" if is_offline else f"{summary['env_steps']} steps"
        print(f"{_figures(summary)} after {made} and {summary['wall_s']:.0f} s")
        curve = ["learning_curve.png"] if spec.env else []
        for name in (*curve, "summary.json", "checkpoint_final"):
            print(run.out / name)


def _fields_to_begin_with(
    config: str | None, resumed: str | None, untuned: bool, given: Mapping[str, Any]
) -> dict[str, Any]:
    """Fields that the command line may change: a file's, those of the run itself, or tuned ones."""
    if config is not None:
        return read_spec(config)
    own = None if resumed is None else Storage.of(resumed) / "config.json"
    if own is not None and own.size is not None:
        return read_spec(own)
    if not untuned and (tuned := tuned_fields(given.get("env", ""))):
        print(f"With the settings tuned for {given['env']}; --untuned leaves them out.")
        return tuned
    return {}


def evaluate(
    checkpoint: Annotated[str, typer.Argument(help="Checkpoint, or a run: its newest one.")],
    episodes: Annotated[int, typer.Option(help="Episodes, each with a held-out goal.")] = 100,
    seed: Annotated[int, typer.Option(help="Which held-out goals.")] = 0,
    video: Annotated[
        Path | None,
        typer.Option(help="Also write a video (.mp4, .gif) and a picture strip (.png)."),
    ] = None,
    trust: Trust = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    debug: Debug = False,
) -> None:
    """Evaluate a checkpoint deterministically on held-out goals."""
    with errors_in_one_sentence(debug), quiet_libraries(debug):
        from rllib_odac.evaluation.checkpoint import CheckpointPolicy

        if episodes < 1:
            raise ValueError(f"episodes is {episodes}, but must be at least 1.")
        if seed < 0:
            raise ValueError(f"seed is {seed}, but must be at least 0.")
        if video is not None and video.suffix not in (".mp4", ".gif", ".png"):
            raise ValueError(f"video is '{video}', but must end in .mp4, .gif or .png.")
        policy = CheckpointPolicy(checkpoint, trust)
        result = policy.evaluate(episodes, seed)
        if as_json:
            print(json.dumps(result))
        else:
            print(
                f"{result['num_episodes']} episodes: success {result['success_rate']:.0%}, final "
                f"distance {result['final_distance']:.4g} "
                f"({result['normalized_distance']:.3g} % of the initial one)"
            )
        if video is not None:
            for path in policy.record(video, seed):
                print(path, file=sys.stderr if as_json else sys.stdout)


def _say_how_to_go_on(run: Run, address: str | None) -> None:
    command = ["odac", "train", "--config", str(run.out / "config.json"), "--out", str(run.out)]
    unit = "updates" if run.spec.settings.get("offline") else "environment steps"
    command += ["--resume", *(["--address", address] if address else [])]
    print(
        f"stopped at {run.steps_saved} {unit}; go on with: {shlex.join(command)}",
        file=sys.stderr,
    )


def _figures(row: Mapping[str, Any]) -> str:
    """The figures of a row, in words, as far as it has any."""
    if row.get("success_rate") is None:
        return "trained"
    return f"success {row['success_rate']:.0%}, final distance {row['final_distance']:.4g}"


class _Reporter:
    """A progress bar on a terminal, plain lines elsewhere."""

    def __init__(self, steps: int, unit: str) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._unit = unit
        self._terminal = sys.stdout.isatty()
        self._progress = Progress(
            TextColumn("{task.completed:>7.0f} / {task.total:.0f} steps"),
            BarColumn(),
            TextColumn("success {task.fields[success]}  distance {task.fields[distance]}"),
            TimeElapsedColumn(),
            disable=not self._terminal,
        )
        self._task = self._progress.add_task("", total=steps, success="–", distance="–")

    def __enter__(self) -> _Reporter:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def row(self, row: Mapping[str, Any]) -> None:
        """Shows a new row of progress."""
        success = distance = "–"  # of an evaluation that was lost, or left out
        if row.get("success_rate") is not None:
            success, distance = f"{row['success_rate']:.0%}", f"{row['final_distance']:.4g}"
        if self._terminal:
            self._progress.update(
                self._task, completed=row[self._unit], success=success, distance=distance
            )
        else:
            steps = "" if self._unit == "updates" else f"env_steps {row['env_steps']}  "
            print(
                f"{steps}updates {row['updates']}  success {success}  distance {distance}  "
                f"{row['wall_s']:.0f} s",
                flush=True,
            )
