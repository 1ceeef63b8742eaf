"""A run's figures in Weights & Biases and MLflow, by their own libraries.

Where they are logged to is theirs to say: `wandb login`, WANDB_MODE and WANDB_DIR, and
MLFLOW_TRACKING_URI.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, TypeAlias

from rllib_odac.experiments.spec import RunSpec
from rllib_odac.experiments.tensorboard import scalars
from rllib_odac.storage import Storage

LogRow: TypeAlias = Callable[[Mapping[str, Any]], None]

NAMES = "tracking.json"  # what the trackers call a run, so that a resumed one goes on there


@contextlib.contextmanager
def tracked(
    spec: RunSpec, place: Storage, wandb: str | None = None, mlflow: str | None = None
) -> Iterator[LogRow]:
    """Logs rows of progress, while the context is open, to the trackers that are asked for.

    Args:
        spec: What is run.
        place: The run's directory.
        wandb: Project of Weights & Biases.
        mlflow: Experiment of MLflow.

    Raises:
        ValueError: If a tracker cannot be logged to.
    """
    names = (place / NAMES).read_json() or {}
    with contextlib.ExitStack() as stack:
        logs = []
        for tracker, name, open_log in (("wandb", wandb, _wandb), ("mlflow", mlflow, _mlflow)):
            if name is None:
                continue
            try:
                opened = open_log(stack, spec, place.name, name, names.get(tracker))
            except Exception as error:
                reason = " ".join(str(error).split()).rstrip(".")
                raise ValueError(
                    f"{tracker} is '{name}', which cannot be logged to: {reason}."
                ) from error
            names[tracker], log = opened
            logs.append(log)
        if logs:
            (place / NAMES).write_json(names)

        def log_row(row: Mapping[str, Any]) -> None:
            for log in logs:
                log(row)

        yield log_row


def check_installed(name: str, value: Any, package: str, extra: str = "tracking") -> None:
    """Checks that a package of an optional extra is there, which a setting needs.

    Raises:
        ValueError: If it is not.
    """
    if importlib.util.find_spec(package) is None:
        raise ValueError(
            f"{name} is '{value}', which needs the package '{package}', not installed here: "
            f'pip install "rllib-odac[{extra}]"'
        )


def _wandb(
    stack: contextlib.ExitStack, spec: RunSpec, name: str, project: str, begun: str | None
) -> tuple[str, LogRow]:
    import wandb

    run = wandb.init(project=project, name=name, config=asdict(spec), id=begun, resume="allow")
    stack.push(lambda kind, *_: run.finish(exit_code=int(kind is not None)))
    run.define_metric("*", step_metric="step")  # W&B's own steps cannot go back, as a resume may

    def log(row: Mapping[str, Any]) -> None:
        step, values = scalars(row)
        run.log({"step": step, **values})

    return run.id, log


def _mlflow(
    stack: contextlib.ExitStack, spec: RunSpec, name: str, experiment: str, begun: str | None
) -> tuple[str, LogRow]:
    import mlflow

    mlflow.set_experiment(experiment)
    run = stack.enter_context(mlflow.start_run(run_id=begun, run_name=name))
    if begun is None:
        mlflow.log_params(
            spec.settings | {n: v for n, v in asdict(spec).items() if n != "settings"}
        )

    def log(row: Mapping[str, Any]) -> None:
        step, values = scalars(row)
        mlflow.log_metrics(values, step=step)

    return run.info.run_id, log
