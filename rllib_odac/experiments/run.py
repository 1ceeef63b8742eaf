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
import logging
import os
import platform
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from rllib_odac.checkpoints.find import checkpoints_of_run, restore_newest
from rllib_odac.checkpoints.manifest import read_manifest
from rllib_odac.experiments.spec import RunSpec, check_same
from rllib_odac.files import PARTIAL, locked, write_json, write_text
from rllib_odac.metrics import FIGURES, LEARNING, METRICS
from rllib_odac.runtime.cluster import Processes, check_room, join_or_start, num_cpus, processes
from rllib_odac.runtime.faults import InterruptedRun

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

    from rllib_odac.algorithm import ODAC
    from rllib_odac.runtime.evaluator import Evaluation

CHECKPOINTS_KEPT = 2
LOCK = ".lock"  # of a run's directory, which one process at a time trains in
MAX_LEARNER_FAILURES = 3  # in a row, without a new checkpoint in between, that a run survives
PACKAGES = ("rllib-odac", "ray", "torch", "gymnasium", "mujoco", "numpy")  # named in the summary

logger = logging.getLogger(__name__)


class LearnerLostError(Exception):
    """The process of a remote learner is dead."""


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
        self.rows: list[dict[str, Any]] = []
        self._on_row = on_row
        self._algorithm: ODAC | None = None  # while it trains
        self._reported = 0  # rows, from the first on, whose evaluation has ended
        self._figures: dict[int, dict[str, float]] = {}  # of evaluations, by environment steps
        self._looks_solved = False  # by one of them
        self._config = spec.config()
        stored = self._read_config(resume)
        # Saving drops open episodes, so the interval between checkpoints is part of what a run
        # does: it is written out, and a resumed run keeps its own unless another is given.
        interval = spec.checkpoint_every or stored.get("checkpoint_every")
        self.spec = replace(spec, checkpoint_every=interval or spec.checkpoint_interval)
        if stored:  # the other fields may change on the way
            wanted = {
                name: getattr(spec, name) for name in ("env", "objective", "seed", "settings")
            }
            cure = "resume it with that or give another directory"
            check_same(wanted, stored, f"the run in '{self.out}'", cure)
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
        is_finished = self._is_finished(summary["env_steps"], summary["success_rate"])
        return summary if is_finished else None

    @property
    def processes(self) -> list[Processes]:
        """The processes that this run starts through Ray, beside the one it is called in."""
        return processes(self._config)

    @property
    def env_steps_saved(self) -> int:
        """Environment steps of the newest checkpoint; 0 if there is none."""
        for checkpoint in checkpoints_of_run(self.out):
            with contextlib.suppress(ValueError):  # damaged
                return int(read_manifest(checkpoint)["env_steps"])
        return 0

    def train(self) -> dict[str, Any]:
        """Trains to the end and returns the summary.

        It uses the Ray cluster that this process has joined. If it has joined none, it joins the
        one that the variable RAY_ADDRESS names, or starts Ray with room for every process.

        Where a learner dies, the run is resumed from its newest checkpoint. Where something else
        fails, a checkpoint is written first, if the learners are whole.

        Returns:
            What `summary.json` holds.

        Raises:
            ValueError: If the cluster can never hold the run's processes, or another process
                trains in the same directory.
            InterruptedRun: After `stop`; the run can be resumed from where it was.
            RuntimeError: If learners die again and again without a new checkpoint in between.
        """
        import ray

        if (summary := self.summary_if_finished) is not None:
            return summary
        if not ray.is_initialized():
            join_or_start(num_cpus=num_cpus(self.processes))
        check_room(self.processes)
        with locked(self.out / LOCK, f"out '{self.out}'"):
            return self._train_to_the_end()

    def _train_to_the_end(self) -> dict[str, Any]:
        write_json(self.out / "config.json", asdict(self.spec))
        failures, steps_at_failure = 0, -1
        while True:
            try:
                return self._train_until_a_learner_dies()
            except LearnerLostError as error:
                steps = self.env_steps_saved
                failures = failures + 1 if steps == steps_at_failure else 1
                steps_at_failure = steps
                if failures > MAX_LEARNER_FAILURES:
                    raise RuntimeError(
                        f"A learner was lost {failures} times without a new checkpoint in between; "
                        "the run goes on with --resume."
                    ) from error
                logger.warning(
                    "A learner is lost; the run goes on from its checkpoint at %d environment "
                    "steps.",
                    steps,
                )

    def stop(self) -> bool:
        """Makes `train` save and end soon; call it from a signal handler or another thread.

        Returns:
            Whether it trains; if not, there is nothing to save, and nothing has been done.
        """
        if self._algorithm is not None:
            self._algorithm.is_interrupted = True
        return self._algorithm is not None

    def _train_until_a_learner_dies(self) -> dict[str, Any]:
        from rllib_odac.experiments.tensorboard import open_writer

        algorithm = self._config.build_algo()
        try:
            self._restore(algorithm)
            self._algorithm = algorithm
            with open_writer(self.out / "tensorboard", algorithm.env_steps) as writer:
                self._train(algorithm, writer)
            self._algorithm = None  # what is left is quickly done
            return self._finish(algorithm)
        except Exception as error:
            if algorithm.has_dead_learner:
                raise LearnerLostError from error
            if self._algorithm is not None:
                self._save_after(error, algorithm)
            raise
        finally:
            self._algorithm = None
            algorithm.stop()

    def _save_after(self, error: Exception, algorithm: ODAC) -> None:
        """Writes a checkpoint after an interruption, or a failure that spared the learners."""
        if isinstance(error, InterruptedRun):
            algorithm.drain()
            self._save_checkpoint(algorithm)
        elif algorithm.can_be_saved:
            with contextlib.suppress(Exception):  # the first failure is the one to report
                algorithm.cancel_samples()
                self._save_checkpoint(algorithm)

    def _train(self, algorithm: ODAC, writer: SummaryWriter) -> None:
        start = time.perf_counter() - (self.rows[-1]["wall_s"] if self.rows else 0.0)
        saved_at = algorithm.env_steps
        algorithm.end_at(self.spec.steps)
        algorithm.on_evaluation = self._note_evaluation
        if algorithm.env_steps >= self.spec.steps:  # only the last evaluation is missing
            self._reported -= 1
            self._evaluate_thoroughly(algorithm, self.rows[-1])
            self._report(writer)
        while (left := self.spec.steps - algorithm.env_steps) > 0:
            if left < self.spec.evaluate_every:
                algorithm.shorten_iteration(left)
            row = self._row(algorithm, algorithm.train())
            self.rows.append(row)
            is_due = algorithm.env_steps - saved_at >= self.spec.checkpoint_interval
            if is_due:
                algorithm.drain()  # a checkpoint needs it, and it may bring the last steps
            is_finished = algorithm.env_steps >= self.spec.steps
            if is_finished or self._looks_solved:
                figures = self._evaluate_thoroughly(algorithm, row)
                is_finished = self._is_finished(algorithm.env_steps, figures["success_rate"])
            row["wall_s"] = round(time.perf_counter() - start, 2)
            self._report(writer, waiting=algorithm.evaluated_env_steps)
            if is_finished:
                return
            if is_due:
                self._save_checkpoint(algorithm)
                saved_at = algorithm.env_steps

    def _evaluate_thoroughly(self, algorithm: ODAC, row: dict[str, Any]) -> dict[str, float]:
        """Gives a row, the last as it seems, the figures of `final_episodes`."""
        algorithm.drain()
        figures = algorithm.evaluate_held_out(self.spec.final_episodes)
        row |= {"env_steps": algorithm.env_steps, "updates": algorithm.updates}
        self._figures[algorithm.env_steps] = figures
        self._looks_solved = False
        return figures

    def _note_evaluation(self, evaluation: Evaluation) -> None:
        if (figures := evaluation.figures) is not None:
            self._figures[evaluation.env_steps] = figures
            stop = self.spec.stop_success
            self._looks_solved = stop is not None and figures["success_rate"] >= stop

    def _report(self, writer: SummaryWriter, waiting: int | None = None) -> None:
        """Writes progress, and shows rows in their order, each when its evaluation has ended.

        Args:
            writer: TensorBoard's.
            waiting: Environment steps of the row whose evaluation goes on, if there is one.
        """
        from rllib_odac.experiments.tensorboard import write_scalars

        ended = []
        while self._reported < len(self.rows) and self.rows[self._reported]["env_steps"] != waiting:
            row = self.rows[self._reported]
            figures = self._figures.pop(row["env_steps"], {})
            row |= {name: float(figures[name]) for name in FIGURES if name in figures}
            ended.append(row)
            self._reported += 1
        self._write_progress()
        for row in ended:
            write_scalars(writer, row)
            self._on_row(row)

    def _is_finished(self, env_steps: int, success_rate: float) -> bool:
        stop = self.spec.stop_success
        return env_steps >= self.spec.steps or (stop is not None and success_rate >= stop)

    def _row(self, algorithm: ODAC, result: Mapping[str, Any]) -> dict[str, Any]:
        """A row of progress, without the figures of an evaluation that may still go on."""
        learned = result.get("learners", {}).get("default_policy", {})
        return dict.fromkeys(METRICS) | {
            "iteration": algorithm.iteration,
            "env_steps": algorithm.env_steps,
            "updates": algorithm.updates,
            **{name: float(learned[name]) for name in LEARNING if name in learned},
        }

    def _finish(self, algorithm: ODAC) -> dict[str, Any]:
        from rllib_odac.evaluation.plots import plot_learning_curve

        algorithm.save_to_path(str(self.out / "checkpoint_final"))
        plot_learning_curve(
            pd.DataFrame(self.rows),
            self.out / "learning_curve.png",
            f"{self.spec.objective} on {self.spec.env}, seed {self.spec.seed}",
        )
        versions = {name: version(name) for name in PACKAGES}
        summary = self.rows[-1] | {
            "env": self.spec.env,
            "objective": self.spec.objective,
            "seed": self.spec.seed,
            "evaluation_episodes": self.spec.final_episodes,
            "faults": asdict(algorithm.fault_counters),
            "versions": versions | {"python": platform.python_version()},
        }
        write_json(self.out / "summary.json", summary)
        return summary

    # Checkpoints and resuming ---------------------------------------------------------------------

    def _save_checkpoint(self, algorithm: ODAC) -> None:
        """Writes a checkpoint, and removes the oldest."""
        directory = self.out / "checkpoints"
        algorithm.save_to_path(str(directory / f"step_{algorithm.env_steps:09d}"))
        kept = [path for path in checkpoints_of_run(self.out) if path.parent == directory]
        for old in kept[CHECKPOINTS_KEPT:]:
            shutil.rmtree(old)

    def _restore(self, algorithm: ODAC) -> None:
        """Restores the newest whole checkpoint, if there is one, and the progress until then."""
        self.rows, self._figures, self._looks_solved = [], {}, False
        if restore_newest(self.out, algorithm.restore_from_path) is not None:
            progress = pd.read_csv(self.out / "progress.csv", float_precision="round_trip")
            kept = progress[progress["env_steps"] <= algorithm.env_steps]
            self.rows = [
                {str(name): value for name, value in row.items() if not pd.isna(value)}
                for row in kept.to_dict("records")
            ]
        self._reported = len(self.rows)
        self._write_progress()

    def _write_progress(self) -> None:
        progress = pd.DataFrame(self.rows, columns=list(METRICS))
        write_text(self.out / "progress.csv", progress.to_csv(index=False))

    def _read_config(self, resume: bool) -> dict[str, Any]:
        """The stored config.json; empty where the directory is new.

        Raises:
            ValueError: If a new run cannot begin there, or there is none to resume.
        """
        path = self.out / "config.json"
        if self.out.exists() and not self.out.is_dir():
            raise ValueError(f"out is '{self.out}', which is a file; it must be a directory.")
        if not path.exists():
            # A run that was killed before it began may leave half a config.json.
            if self.out.is_dir() and {*os.listdir(self.out)} - {f"config.json{PARTIAL}", LOCK}:
                raise ValueError(
                    f"out is '{self.out}', which holds other files; it must be empty, new, or a "
                    "run to resume."
                )
            return {}
        try:
            stored: dict[str, Any] = json.loads(path.read_text())
        except ValueError as error:
            raise ValueError(f"'{path}' is damaged: {error}.") from None
        if not resume:
            raise ValueError(
                f"out is '{self.out}', which holds a run of {stored['env']} already; give another "
                "directory, or --resume to go on with it."
            )
        return stored
