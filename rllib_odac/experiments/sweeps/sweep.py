"""A sweep: a Ray Tune experiment in a storage folder, which can be resumed after any interruption.

STORAGE/NAME/sweep.json      what was asked for
STORAGE/NAME/trial_*/        Tune's: results, TensorBoard's events and checkpoints of each trial
STORAGE/NAME/results/        results.csv, results.parquet, best.json, report.html
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rllib_odac.declarations import (
    COUNT,
    COUNT_FROM_0,
    NON_NEGATIVE,
    SEED,
    TEXT,
    Rule,
    declarations,
    lists_its_settings,
    one_of,
    setting,
)
from rllib_odac.experiments.spec import check_same
from rllib_odac.experiments.sweeps.space import MUTABLE
from rllib_odac.experiments.sweeps.spec import SweepSpec
from rllib_odac.experiments.tracking import check_installed
from rllib_odac.files import write_text
from rllib_odac.runtime.cluster import Processes, check_python_path, own_process, processes
from rllib_odac.storage import Storage

if TYPE_CHECKING:
    from rllib_odac.experiments.sweeps.results import SweepResults

MAX_FAILURES = 3  # of a trial since its newest checkpoint, from which each is retried
CHECKPOINTS_KEPT = 4  # more than are made between two of Tune's snapshots, which name the oldest
CHECKPOINTS_KEPT_IN_POPULATION = 6  # others may be about to clone one that is not the newest
SNAPSHOT_S = "2"  # seconds between Tune's snapshots, what a killed driver loses at most
NAME = Rule(
    lambda v: re.fullmatch(r"(?!\.+$)[A-Za-z0-9_.-]+", v) is not None,
    "letters, digits, '_', '.' and '-'",
)
SPEC = Rule(lambda v: isinstance(v, SweepSpec), "a SweepSpec")


@lists_its_settings
@dataclass(frozen=True)
class Sweep:
    """A search over hyper-parameters; a ValueError says in one sentence what is wrong with it."""

    spec: SweepSpec = setting(MISSING, SPEC, "what is searched")
    name: str = setting(MISSING, NAME, "the sweep's folder in its storage")
    storage: str = setting(MISSING, TEXT, "directory or URI that all nodes can write to")
    trials: int = setting(24, COUNT, "configurations, the base's own first")
    seeds: int = setting(1, COUNT, "seeds of each configuration")
    scheduler: str = setting("asha", one_of("asha", "pbt", "none"), "what ends trials early")
    searcher: str = setting("random", one_of("random", "optuna"), "what chooses configurations")
    num_env_runners: int = setting(0, COUNT_FROM_0, "remote env runners of a trial")
    num_learners: int = setting(0, COUNT_FROM_0, "remote learners of a trial")
    num_gpus_per_learner: float = setting(0.0, NON_NEGATIVE, "GPUs of each learner")
    seed: int = setting(0, SEED, "seed of the search, and the first of the trials")
    wandb: str | None = setting(None, TEXT.or_none(), "project of Weights & Biases to log to")
    mlflow: str | None = setting(None, TEXT.or_none(), "experiment of MLflow to log to")

    def __post_init__(self) -> None:
        for name, declared in declarations(Sweep).items():
            declared.check(name, getattr(self, name))
        if self.scheduler == "pbt":
            self._check_population()
        if self.searcher == "optuna":
            check_installed("searcher", "optuna", "optuna", extra="sweep")
        for name in ("wandb", "mlflow"):
            if (value := getattr(self, name)) is not None:
                check_installed(name, value, package=name)

    def _check_population(self) -> None:
        """Checks what scheduler pbt needs, whose trials take over each other's configurations."""
        if self.searcher != "random":
            raise ValueError(f"searcher is '{self.searcher}', but must be random with pbt.")
        if self.seeds != 1:
            raise ValueError(f"seeds is {self.seeds}, but must be 1 with pbt.")
        if self.trials < 2:
            raise ValueError(f"trials is {self.trials}, but must be at least 2 with pbt.")
        if not set(self.spec.space) & set(MUTABLE):
            raise ValueError(
                f"space has {list(self.spec.space)}, but must have one of {list(MUTABLE)} with "
                "pbt, which changes them in mid-run."
            )

    @property
    def storage_uri(self) -> str:
        """Absolute path or URI of the folder that the sweep's own lies in, as Tune takes it."""
        is_uri = "://" in self.storage
        uri = self.storage if is_uri else str(Path(self.storage).expanduser().absolute())
        return uri.rstrip("/")

    @property
    def uri(self) -> str:
        """Absolute path or URI of the sweep's folder."""
        return f"{self.storage_uri}/{self.name}"

    @property
    def each_seed(self) -> range:
        """The seeds of each configuration."""
        return range(self.seed, self.seed + self.seeds)

    @property
    def resources(self) -> dict[str, Any]:
        """Fields of `ODACConfig` that say which processes a trial has and what they take."""
        names = ("num_env_runners", "num_learners", "num_gpus_per_learner")
        return {name: getattr(self, name) for name in names}

    def parameters(self) -> dict[str, Any]:
        """What every trial has in common, without its own configuration and seed.

        Raises:
            ValueError: With one sentence on the first setting that is wrong.
        """
        from rllib_odac.experiments.sweeps.trial import trial_parameters

        return trial_parameters(self.spec.base, self.resources)

    def processes(self) -> list[Processes]:
        """The processes of one trial."""
        from rllib_odac.experiments.sweeps.trial import SweepConfig

        config = SweepConfig().update_from_dict(self.parameters())
        return [own_process(config), *processes(config)]

    def to_json(self) -> dict[str, Any]:
        """Everything that decides which trials there are and what they do."""
        names = ("trials", "seeds", "scheduler", "searcher", "seed")
        return {
            "study": self.spec.to_json(),
            **{name: getattr(self, name) for name in names},
            "resources": self.resources,
        }


def check_storage(sweep: Sweep, resume: bool) -> None:
    """Checks that the sweep's folder can be written and holds no other sweep.

    A sweep is the same with more trials, unless they are a population.

    Raises:
        ValueError: If it cannot be written, holds a sweep and `resume` is not set, or another one.
    """
    try:
        Storage.of(sweep.storage_uri).check_writable()
        stored = _sweep_file(sweep).read_json()
    except (OSError, ValueError, NotImplementedError) as error:  # PyArrow's errors are of these
        reason = " ".join(str(error).split()).rstrip(".")
        raise ValueError(
            f"storage is '{sweep.storage}', which cannot be written: {reason}."
        ) from None
    if stored is None:
        return
    if not resume:
        raise ValueError(
            f"name is '{sweep.name}', but '{sweep.uri}' holds a sweep already; give another name, "
            "or --resume to go on with it."
        )
    cure = "resume it with that or give another name"
    if sweep.scheduler != "pbt" and sweep.trials > stored["trials"]:
        stored |= {"trials": sweep.trials}
    check_same(sweep.to_json(), stored, f"the sweep in '{sweep.uri}'", cure)


def run_sweep(
    sweep: Sweep, on_trial: Callable[[str], None] = lambda line: None, verbose: int = 0
) -> SweepResults:
    """Runs a sweep, or what is left of it, on the Ray cluster that this process has joined.

    Call `check_storage` first.

    Args:
        sweep: The sweep.
        on_trial: Called with a line when a trial has ended.
        verbose: How much Tune prints, from 0 to 2.

    Returns:
        The results, which have been written too.

    Raises:
        ValueError: If Ray cannot start trials here (see `check_python_path`), or no trial finds a
            place in time (see `RoomInTime`).
    """
    from ray import tune

    from rllib_odac.experiments.sweeps.progress import Progress
    from rllib_odac.experiments.sweeps.report import report
    from rllib_odac.experiments.sweeps.results import SweepResults
    from rllib_odac.experiments.sweeps.trial import SweepTrial
    from rllib_odac.ray_compat import set_search_algorithm

    check_python_path()
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", SNAPSHOT_S)
    # Snapshots that often are meant.
    os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
    Progress.report, Progress.number = on_trial, sweep.trials * sweep.seeds
    Storage.of(sweep.uri).make_directory()
    _sweep_file(sweep).write_json(sweep.to_json())
    if tune.Tuner.can_restore(sweep.uri):
        tuner = tune.Tuner.restore(
            sweep.uri, SweepTrial, param_space=_param_space(sweep), resume_errored=True
        )
        set_search_algorithm(tuner, _search_algorithm(sweep))
    else:
        tuner = _new_tuner(sweep, verbose)
    results = SweepResults.of(tuner.fit(), sweep)
    with tempfile.TemporaryDirectory() as directory:
        results.write(Path(directory))
        write_text(Path(directory) / "report.html", report(results))
        Storage.of(f"{sweep.uri}/results").upload(directory)
    return results


def _sweep_file(sweep: Sweep) -> Storage:
    return Storage.of(f"{sweep.uri}/sweep.json")


def _new_tuner(sweep: Sweep, verbose: int) -> Any:
    from ray import tune
    from ray.tune import CheckpointConfig, FailureConfig, RunConfig, TuneConfig

    from rllib_odac.experiments.sweeps import search
    from rllib_odac.experiments.sweeps.failures import FailuresSinceProgress
    from rllib_odac.experiments.sweeps.progress import Progress
    from rllib_odac.experiments.sweeps.room import RoomInTime
    from rllib_odac.experiments.sweeps.trial import SweepTrial

    spec, base, is_population = sweep.spec, sweep.spec.base, sweep.scheduler == "pbt"
    interval = base.checkpoint_interval_with(base.config())
    return tune.Tuner(
        SweepTrial,
        param_space=_param_space(sweep),
        tune_config=TuneConfig(
            metric=spec.metric,
            mode=spec.mode,
            num_samples=sweep.trials * sweep.seeds,
            search_alg=_search_algorithm(sweep),
            scheduler=search.make_scheduler(sweep.scheduler, spec),
            reuse_actors=False,  # a trial has a process of its own, and nothing of another's
            trial_name_creator=trial_name,
            trial_dirname_creator=trial_name,
        ),
        run_config=RunConfig(
            name=sweep.name,
            storage_path=sweep.storage_uri,
            verbose=verbose,
            checkpoint_config=CheckpointConfig(
                num_to_keep=CHECKPOINTS_KEPT_IN_POPULATION if is_population else CHECKPOINTS_KEPT,
                checkpoint_frequency=max(1, interval // base.evaluate_every),
                checkpoint_at_end=True,
            ),
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
            callbacks=[
                Progress(spec.metric),
                FailuresSinceProgress(),
                RoomInTime(sweep.processes()),
                *_loggers(sweep),
            ],
        ),
    )


def _param_space(sweep: Sweep) -> dict[str, Any]:
    from rllib_odac.experiments.sweeps.search import Drawn

    if sweep.searcher != "random":
        return sweep.parameters()
    return sweep.parameters() | Drawn.space(sweep.spec, sweep.each_seed, sweep.seed)


def _search_algorithm(sweep: Sweep) -> Any:
    from rllib_odac.experiments.sweeps import search

    if sweep.searcher == "random":
        return search.Drawn(sweep.trials, sweep.each_seed)
    searcher = search.OptunaSearcher(sweep.spec, sweep.each_seed, sweep.seed)
    return search.Suggested(searcher, sweep.trials * sweep.seeds)


def trial_name(trial: Any) -> str:
    """The name of a trial and of its folder."""
    return f"trial_{trial.trial_id}"


def _loggers(sweep: Sweep) -> list[Any]:
    """Those besides TensorBoard's, CSV's and JSON's, which Tune always has."""
    loggers: list[Any] = []
    if sweep.wandb is not None:
        from ray.air.integrations.wandb import WandbLoggerCallback

        loggers.append(WandbLoggerCallback(project=sweep.wandb, group=sweep.name))
    if sweep.mlflow is not None:
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        loggers.append(MLflowLoggerCallback(experiment_name=sweep.mlflow))
    return loggers
