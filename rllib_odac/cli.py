"""The `odac` command."""

from __future__ import annotations

import ast
import contextlib
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Outcome-Driven Actor-Critic: train agents that reach goals without a hand-made reward.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and Ray's own messages.")]


@app.command()
def train(
    env: Annotated[
        str | None, typer.Argument(help="Environment id; `odac envs` lists them.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="A run's settings as JSON (tune_configs/*.json, a run's config.json)."),
    ] = None,
    objective: Annotated[
        str | None, typer.Option(help="How reward and discount come about: odac or her [odac].")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Environment steps to train for [100000].")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random [0].")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run directory [runs/ENV-OBJECTIVE-TIME].")
    ] = None,
    num_env_runners: Annotated[
        int | None, typer.Option(help="Remote env runners [0: none].")
    ] = None,
    num_learners: Annotated[int | None, typer.Option(help="Remote learners [0: none].")] = None,
    stop_success: Annotated[
        float | None, typer.Option(help="Stop once an evaluation succeeds this often, in (0, 1].")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of ODACConfig, as key=value.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint in --out.")
    ] = False,
    evaluate_every: Annotated[
        int | None, typer.Option(help="Steps between two evaluations [1000].")
    ] = None,
    checkpoint_every: Annotated[
        int | None, typer.Option(help="Steps between checkpoints [1000, or steps/50 if more].")
    ] = None,
    debug: Debug = False,
) -> None:
    """Train, evaluate as it goes, and write a run directory.

    What the command line says comes before what --config says.
    """
    from rllib_odac.runs import Run, RunSpec, read_spec

    with _errors_in_one_sentence(debug):
        given: dict[str, Any] = {
            "env": env,
            "objective": objective,
            "steps": steps,
            "seed": seed,
            "num_env_runners": num_env_runners,
            "num_learners": num_learners,
            "stop_success": stop_success,
            "evaluate_every": evaluate_every,
            "checkpoint_every": checkpoint_every,
        }
        fields = {} if config is None else read_spec(config)
        fields |= {name: value for name, value in given.items() if value is not None}
        fields["settings"] = fields.get("settings", {}) | _parse_settings(settings or [])
        if "env" not in fields:
            raise ValueError("train needs an environment: its id, or a --config that names one.")
        spec = RunSpec(**fields)
        if out is None:
            if resume:
                raise ValueError("resume needs --out, the directory of the run to go on with.")
            name = f"{_file_name(spec.env)}-{spec.objective}-{time.strftime('%Y%m%d-%H%M%S')}"
            out = Path("runs") / name
        reporter = _Reporter(spec.steps)
        with _quiet_libraries(debug):
            # Every mistake shows here, before Ray starts.
            run = Run(spec, out, resume=resume, on_row=reporter.row)
            if run.summary_if_finished is not None:
                print(f"The run in {run.out} has finished already.")
                return
            _start_ray(1 + spec.num_env_runners + spec.num_learners, debug)
            with reporter:
                summary = run.train()
        print(
            f"success {summary['success_rate']:.0%}, final distance "
            f"{summary['final_distance']:.4g} after {summary['env_steps']} steps and "
            f"{summary['wall_s']:.0f} s"
        )
        for name in ("learning_curve.png", "summary.json", "checkpoint_final"):
            print(run.out / name)


@app.command()
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint directory.")],
    episodes: Annotated[int, typer.Option(help="Episodes, each with a held-out goal.")] = 100,
    seed: Annotated[int, typer.Option(help="Which held-out goals.")] = 0,
    video: Annotated[
        Path | None,
        typer.Option(help="Also write a video (.mp4, .gif) and a picture strip (.png)."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    debug: Debug = False,
) -> None:
    """Evaluate a checkpoint deterministically on held-out goals."""
    with _errors_in_one_sentence(debug), _quiet_libraries(debug):
        from rllib_odac.evaluation.checkpoint import CheckpointPolicy

        if episodes < 1:
            raise ValueError(f"episodes is {episodes}, but must be at least 1.")
        if seed < 0:
            raise ValueError(f"seed is {seed}, but must be at least 0.")
        if video is not None and video.suffix not in (".mp4", ".gif", ".png"):
            raise ValueError(f"video is '{video}', but must end in .mp4, .gif or .png.")
        policy = CheckpointPolicy(checkpoint)
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


@app.command()
def envs(
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects.")] = False,
    debug: Debug = False,
) -> None:
    """List the goal environments: what has to be where, how exactly, in how many steps."""
    with _errors_in_one_sentence(debug):
        from rllib_odac.envs.catalogue import describe_envs

        rows = describe_envs()
        if as_json:
            print(json.dumps(rows, indent=2))
        else:
            _print_envs(rows)


@app.command()
def render(
    env: Annotated[str, typer.Argument(help="Environment id; `odac envs` lists them.")],
    out: Annotated[Path, typer.Option(help="Directory for the two files.")] = Path("runs/render"),
    episodes: Annotated[int, typer.Option(help="Episodes in the video.")] = 1,
    steps: Annotated[int, typer.Option(help="Where to stop an episode that goes on.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of starts, goals and actions.")] = 0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="An argument of the environment, key=value.")
    ] = None,
    debug: Debug = False,
) -> None:
    """Film random actions in an environment: a video and a picture strip."""
    with _errors_in_one_sentence(debug):
        from rllib_odac.envs import make_env
        from rllib_odac.evaluation.video import film_random, picture_strip, record_video

        least_values = {"episodes": (episodes, 1), "steps": (steps, 1), "seed": (seed, 0)}
        for name, (value, least) in least_values.items():
            if value < least:
                raise ValueError(f"{name} is {value}, but must be at least {least}.")
        arguments = _parse_settings(settings or [])
        if "render_mode" in arguments:
            raise ValueError("render_mode is no argument to set: pictures need 'rgb_array'.")
        with _quiet_warnings(debug):
            made = make_env(env, render_mode="rgb_array", **arguments)
            try:
                films = [film_random(made, steps, seed + i) for i in range(episodes)]
            finally:
                made.close()  # type: ignore[no-untyped-call]
        target = out / _file_name(env)
        fps = made.metadata.get("render_fps", 25)
        print(picture_strip(target.with_name(f"{target.name}.png"), films[0]))
        print(record_video(target.with_name(f"{target.name}.mp4"), chain(*films), fps))


def main() -> None:
    """Entry point of the `odac` command."""
    # One thread a process: small networks gain nothing from two, and two busy processes with two
    # threads each on two cores are many times slower. Read by OpenMP when torch is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    app()


def _parse_settings(pairs: list[str]) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise ValueError(f"--set has '{pair}', but must have the form key=value.")
        text = {"true": "True", "false": "False", "none": "None", "null": "None"}.get(
            text.lower(), text
        )
        try:
            settings[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            settings[name] = text  # a plain word, such as auto
    return settings


def _file_name(env: str) -> str:
    return env.replace("/", "-").replace(":", "-")


def _print_envs(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("environment", overflow="fold")  # an id must be whole
    for column in ("goal", "success within", "steps", "installed"):
        table.add_column(column)
    for row in rows:
        table.add_row(
            row["id"],
            f"{row['goal_dim']}: {row['goal']}",
            row["success"],
            str(row["horizon"]),
            row["install"] or "yes",
        )
    # Lines fit a terminal's width, but a file has none.
    width = None if sys.stdout.isatty() else 200
    Console(width=width, markup=False, highlight=False).print(table)


def _start_ray(processes: int, debug: bool) -> None:
    import ray

    cpus = max(os.cpu_count() or 1, processes)
    if processes > (os.cpu_count() or 1) + 1:
        print(
            f"warning: {processes} processes share {os.cpu_count()} CPUs; more env runners or "
            "learners will not make this faster.",
            file=sys.stderr,
        )
    ray.init(
        num_cpus=cpus,
        include_dashboard=False,
        log_to_driver=debug,
        logging_level=logging.INFO if debug else logging.ERROR,
    )


@contextlib.contextmanager
def _quiet_libraries(debug: bool) -> Iterator[None]:
    if debug:
        yield
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # silences a future change
    import ray  # which sets its logger's level when it is imported

    logging.getLogger(ray.__name__).setLevel(logging.ERROR)
    with _quiet_warnings(debug):
        yield


@contextlib.contextmanager
def _quiet_warnings(debug: bool) -> Iterator[None]:
    with warnings.catch_warnings():
        if not debug:
            warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _errors_in_one_sentence(debug: bool) -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, typer.Exit):
        raise
    except Exception as error:
        if debug:
            raise
        cause: BaseException = error
        # Ray wraps what went wrong in an error with a `cause`, RLlib in one without a text.
        while inner := getattr(cause, "cause", None) or (
            cause.__cause__ if not str(cause) else None
        ):
            cause = inner
        text = " ".join(str(cause).split()) or type(cause).__name__
        known = isinstance(cause, ValueError | OSError | FloatingPointError | RuntimeError)
        hint = "" if known else " (--debug shows where)"
        print(f"error: {text}{hint}", file=sys.stderr)
        raise typer.Exit(2) from None


class _Reporter:
    """A progress bar on a terminal, plain lines elsewhere."""

    def __init__(self, steps: int) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

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
        success, distance = f"{row['success_rate']:.0%}", f"{row['final_distance']:.4g}"
        if self._terminal:
            self._progress.update(
                self._task, completed=row["env_steps"], success=success, distance=distance
            )
        else:
            print(
                f"env_steps {row['env_steps']}  updates {row['updates']}  success {success}  "
                f"distance {distance}  {row['wall_s']:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
