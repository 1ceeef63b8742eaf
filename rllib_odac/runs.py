"""A training run in a directory: what `odac train` does, for Python users too.

config.json          what was asked for
progress.csv         one row an iteration; `metrics` says what each column means
tensorboard/         the same as event files
checkpoints/         the newest whole checkpoints, named by environment steps
checkpoint_final/    the last one
learning_curve.png   success and distance over steps
summary.json         the figures at the end, versions and seed
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from rllib_odac import metrics
from rllib_odac.cluster import Processes, check_room, join_or_start, num_cpus, processes

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

    from rllib_odac.algorithm import ODAC
    from rllib_odac.config import ODACConfig

FIGURES, LEARNING = tuple(metrics.FIGURES), tuple(metrics.LEARNING)
PROGRESS_COLUMNS = tuple(metrics.METRICS)
STEPS_PAST_THE_END = 100  # a run ends at most so many environment steps past its budget
CHECKPOINTS_KEPT = 2


@dataclass
class RunSpec:
    """What a run is: everything that decides its result.

    Attributes:
        env: Environment id.
        objective: Name of the objective.
        steps: Environment steps to train for.
        seed: Seed of networks, exploration, replay and environments.
        settings: Further fields of `ODACConfig`, by name.
        num_env_runners: Remote env runners; 0 collects in the driver's process.
        num_learners: Remote learners; 0 learns in the driver's process.
        stop_success: Stop early once this success rate is reached in an evaluation.
        evaluate_every: Environment steps between two evaluations, each a row of progress.
        evaluation_episodes: Episodes of each evaluation but the last.
        final_episodes: Episodes of the last evaluation.
        checkpoint_every: Environment steps between two checkpoints; by default 1000, or a
            fiftieth of `steps` if that is more.
    """

    env: str
    objective: str = "odac"
    steps: int = 100_000
    seed: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    num_env_runners: int = 0
    num_learners: int = 0
    stop_success: float | None = None
    evaluate_every: int = 1000
    evaluation_episodes: int = 20
    final_episodes: int = 100
    checkpoint_every: int | None = None

    @property
    def checkpoint_interval(self) -> int:
        """Environment steps between two checkpoints."""
        if self.checkpoint_every is None:
            return max(1000, self.steps // 50)
        return self.checkpoint_every

    def config(self) -> ODACConfig:
        """The validated configuration of this run.

        Raises:
            ValueError: With one sentence on the first setting that is wrong.
        """
        from rllib_odac.config import ODACConfig

        if not isinstance(self.env, str):
            raise ValueError(f"env is {self.env!r}, but must be the id of an environment.")
        least = {
            **dict.fromkeys(
                ("steps", "evaluate_every", "evaluation_episodes", "final_episodes"), 1
            ),
            **dict.fromkeys(("seed", "num_env_runners", "num_learners"), 0),
            **({} if self.checkpoint_every is None else {"checkpoint_every": 1}),
        }
        for name, number in least.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise ValueError(f"{name} is {value!r}, but must be a whole number.")
            if value < number:
                raise ValueError(f"{name} is {value}, but must be at least {number}.")
        stop = self.stop_success
        if stop is not None and not (isinstance(stop, int | float) and 0 < stop <= 1):
            raise ValueError(f"stop_success is {self.stop_success}, but must be in (0, 1].")
        config: ODACConfig = (
            ODACConfig()
            .environment(self.env)
            .training(objective=self.objective)
            .env_runners(num_env_runners=self.num_env_runners)
            .learners(num_learners=self.num_learners)
            .evaluation(evaluation_duration=self.evaluation_episodes)
            .reporting(min_sample_timesteps_per_iteration=self.evaluate_every)
            .debugging(seed=self.seed, log_level="ERROR")
        )
        if "objective" in self.settings:
            raise ValueError(
                f"settings has objective {self.settings['objective']!r}, but must leave it to the "
                "run's own objective."
            )
        config.apply_settings(self.settings)
        config.check_settings()
        environments = config.num_envs_per_env_runner
        if environments > STEPS_PAST_THE_END:
            raise ValueError(
                f"num_envs_per_env_runner is {environments}, but must be at most "
                f"{STEPS_PAST_THE_END}, so that a run ends within so many steps of its budget."
            )
        fragment = min(config.rollout_fragment_length, STEPS_PAST_THE_END // environments)
        config.env_runners(rollout_fragment_length=fragment)
        config.validate()
        return config


def read_spec(path: Path) -> dict[str, Any]:
    """Fields of a `RunSpec` in a JSON file, such as a run's own config.json.

    Raises:
        ValueError: If the file cannot be read, or names a field that there is not.
    """
    try:
        stored = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"config is '{path}', which cannot be read: {error}.") from None
    known = [field.name for field in fields(RunSpec)]
    if not isinstance(stored, dict) or not isinstance(stored.get("settings", {}), dict):
        raise ValueError(
            f"config is '{path}', but must hold an object with some of {known}, 'settings' being "
            "an object too."
        )
    for name in stored:
        if name not in known:
            raise ValueError(f"config '{path}' has the field '{name}', but must use {known}.")
    return stored


class Run:
    """A training run bound to its directory.

    Args:
        spec: What to run.
        out: The run's directory.
        resume: Go on from the newest whole checkpoint in the directory, if there is one.
        on_row: Called with each new row of progress.

    Raises:
        ValueError: If a setting is wrong, the directory holds another run, or this one and
            `resume` is not set, or it cannot be written.
    """

    def __init__(
        self,
        spec: RunSpec,
        out: str | os.PathLike[str],
        resume: bool = False,
        on_row: Callable[[Mapping[str, Any]], None] = lambda row: None,
    ) -> None:
        self.out = Path(out).absolute()
        self.resume = resume
        self.on_row = on_row
        self.rows: list[dict[str, Any]] = []
        self._config = spec.config()
        self.spec = self._with_its_checkpoints(spec)
        self._check_directory()
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"out is '{self.out}', which cannot be made: {error}.") from None
        if not os.access(self.out, os.W_OK):
            raise ValueError(f"out is '{self.out}', which cannot be written to.")

    @property
    def summary_if_finished(self) -> dict[str, Any] | None:
        """The summary, if the run has ended as far as its specification asks for."""
        path = self.out / "summary.json"
        if not path.exists():
            return None
        summary: dict[str, Any] = json.loads(path.read_text())
        stop = self.spec.stop_success
        solved = stop is not None and summary["success_rate"] >= stop
        return summary if summary["env_steps"] >= self.spec.steps or solved else None

    @property
    def processes(self) -> list[Processes]:
        """The processes that this run starts through Ray, beside the one it is called in."""
        return processes(self._config)

    def train(self) -> dict[str, Any]:
        """Trains to the end and returns the summary.

        It uses the Ray cluster that this process has joined. If it has joined none, it joins the
        one that the variable RAY_ADDRESS names, or starts Ray with room for every process.

        Returns:
            What `summary.json` holds.

        Raises:
            ValueError: If the cluster can never hold the run's processes.
        """
        import ray

        from rllib_odac.tensorboard import open_writer

        if (summary := self.summary_if_finished) is not None:
            return summary
        if not ray.is_initialized():
            join_or_start(num_cpus=num_cpus(self.processes))
        check_room(self.processes)
        _write_json(self.out / "config.json", asdict(self.spec))
        algorithm = self._config.build_algo()
        try:
            self._restore(algorithm)
            with open_writer(self.out / "tensorboard", algorithm.env_steps) as board:
                self._train(algorithm, board)
            return self._finish(algorithm)
        finally:
            algorithm.stop()

    def _train(self, algorithm: ODAC, board: SummaryWriter) -> None:
        from rllib_odac.tensorboard import write_scalars

        start = time.perf_counter() - (self.rows[-1]["wall_s"] if self.rows else 0.0)
        saved = algorithm.env_steps
        algorithm.end_at(self.spec.steps)
        while algorithm.env_steps < self.spec.steps:
            left = self.spec.steps - algorithm.env_steps
            if left < self.spec.evaluate_every:
                algorithm.shorten_iteration(left)
            result = algorithm.train()
            row = self._row(algorithm, result)
            is_due = algorithm.env_steps - saved >= self.spec.checkpoint_interval
            if is_due:
                algorithm.drain()  # a checkpoint needs it, and it may bring the last steps
            solved = self._is_solved(row["success_rate"])
            if solved or algorithm.env_steps >= self.spec.steps:
                # The last figures are those of the thorough evaluation.
                algorithm.drain()
                row |= {"env_steps": algorithm.env_steps, "updates": algorithm.updates}
                row |= algorithm.evaluate_held_out(self.spec.final_episodes)
                solved = self._is_solved(row["success_rate"])
            row["wall_s"] = round(time.perf_counter() - start, 2)
            self.rows.append({name: row.get(name) for name in PROGRESS_COLUMNS})
            self._write_progress()
            write_scalars(board, self.rows[-1])
            self.on_row(self.rows[-1])
            if solved or algorithm.env_steps >= self.spec.steps:
                return
            if is_due:
                self._checkpoint(algorithm, self._checkpoint_path(algorithm.env_steps))
                saved = algorithm.env_steps

    def _is_solved(self, success_rate: float) -> bool:
        return self.spec.stop_success is not None and success_rate >= self.spec.stop_success

    def _row(self, algorithm: ODAC, result: Mapping[str, Any]) -> dict[str, Any]:
        learned = result.get("learners", {}).get("default_policy", {})
        evaluated = result["evaluation"]["env_runners"]
        return {
            "iteration": algorithm.iteration,
            "env_steps": algorithm.env_steps,
            "updates": algorithm.updates,
            **{name: float(evaluated[name]) for name in FIGURES},
            **{name: float(learned[name]) for name in LEARNING if name in learned},
        }

    def _finish(self, algorithm: ODAC) -> dict[str, Any]:
        from rllib_odac.evaluation.plots import plot_learning_curve

        self._checkpoint(algorithm, self.out / "checkpoint_final")
        plot_learning_curve(
            pd.DataFrame(self.rows),
            self.out / "learning_curve.png",
            f"{self.spec.objective} on {self.spec.env}, seed {self.spec.seed}",
        )
        summary = self.rows[-1] | {
            "env": self.spec.env,
            "objective": self.spec.objective,
            "seed": self.spec.seed,
            "evaluation_episodes": self.spec.final_episodes,
            "versions": {
                name: version(name)
                for name in ("rllib-odac", "ray", "torch", "gymnasium", "mujoco", "numpy")
            }
            | {"python": platform.python_version()},
        }
        _write_json(self.out / "summary.json", summary)
        return summary

    # Checkpoints and resuming ---------------------------------------------------------------------

    def _checkpoint_path(self, env_steps: int) -> Path:
        return self.out / "checkpoints" / f"step_{env_steps:09d}"

    def _checkpoint(self, algorithm: ODAC, path: Path) -> None:
        """Saves to a partial directory and renames it: a checkpoint is whole or absent."""
        partial = path.with_name(path.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.parent.mkdir(parents=True, exist_ok=True)
        algorithm.save_to_path(str(partial))
        shutil.rmtree(path, ignore_errors=True)
        partial.rename(path)
        if path.parent.name == "checkpoints":
            for old in sorted(path.parent.glob("step_*[0-9]"))[:-CHECKPOINTS_KEPT]:
                shutil.rmtree(old)

    def _whole_checkpoints(self) -> list[Path]:
        """Checkpoints by their environment steps; a run that goes on outgrows its final one."""
        from rllib_odac.algorithm import read_manifest

        found = [*(self.out / "checkpoints").glob("step_*[0-9]"), self.out / "checkpoint_final"]
        return sorted(
            (path for path in found if path.is_dir()),
            key=lambda path: read_manifest(path)["env_steps"],
        )

    def _restore(self, algorithm: ODAC) -> None:
        checkpoints = self._whole_checkpoints()
        if checkpoints:
            algorithm.restore_from_path(str(checkpoints[-1]))
            progress = pd.read_csv(self.out / "progress.csv", float_precision="round_trip")
            kept = progress[progress["env_steps"] <= algorithm.env_steps]
            self.rows = [
                {str(name): value for name, value in row.items() if not pd.isna(value)}
                for row in kept.to_dict("records")
            ]
        self._write_progress()

    def _write_progress(self) -> None:
        partial = self.out / "progress.csv.partial"
        pd.DataFrame(self.rows, columns=list(PROGRESS_COLUMNS)).to_csv(partial, index=False)
        os.replace(partial, self.out / "progress.csv")

    def _with_its_checkpoints(self, spec: RunSpec) -> RunSpec:
        """The specification with the interval between checkpoints written out.

        Saving drops open episodes, so the interval is part of what a run does: one that is resumed
        to go further keeps its own, unless it is told otherwise.
        """
        path = self.out / "config.json"
        interval = spec.checkpoint_every
        if interval is None and self.resume and path.is_file():
            with contextlib.suppress(ValueError):  # a damaged file is reported later
                interval = json.loads(path.read_text()).get("checkpoint_every")
        return replace(spec, checkpoint_every=interval or spec.checkpoint_interval)

    def _check_directory(self) -> None:
        path = self.out / "config.json"
        if self.out.exists() and not self.out.is_dir():
            raise ValueError(f"out is '{self.out}', which is a file; it must be a directory.")
        if not path.exists():
            if self.out.is_dir() and any(self.out.iterdir()):
                raise ValueError(
                    f"out is '{self.out}', which holds other files; it must be empty, new, or a "
                    "run to resume."
                )
            return
        wanted = json.loads(json.dumps(asdict(self.spec)))
        try:
            stored = json.loads(path.read_text())
        except ValueError as error:
            raise ValueError(f"'{path}' is damaged: {error}.") from None
        if not self.resume:
            raise ValueError(
                f"out is '{self.out}', which holds a run of {stored['env']} already; give another "
                "directory, or --resume to go on with it."
            )
        for name in ("env", "objective", "seed", "settings"):  # the rest may change on the way
            if stored[name] != wanted[name]:
                raise ValueError(
                    f"{name} is {wanted[name]!r}, but the run in '{self.out}' has "
                    f"{stored[name]!r}; resume it with that or give another directory."
                )


def _write_json(path: Path, content: Any) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(partial, path)
