"""A training run in a directory: what `odac train` does, for Python users too.

config.json          what was asked for
progress.csv         one row an iteration; `metrics` says what each column means
tensorboard/         the same as event files
tracking.json        what Weights & Biases and MLflow call the run, where they are asked for
checkpoints/         the newest whole checkpoints, named by environment steps
checkpoint_final/    the last one
learning_curve.png   success and distance over steps
summary.json         the figures at the end, versions and seed
"""

from __future__ import annotations

import contextlib
import io
import logging
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pandas as pd

from rllib_odac.checkpoints.find import CHECKPOINTS, FINAL, checkpoints_of_run, restore_newest
from rllib_odac.checkpoints.manifest import read_manifest
from rllib_odac.experiments.run_files import RunFiles
from rllib_odac.experiments.spec import RunSpec, check_same
from rllib_odac.experiments.tracking import LogRow, check_installed, tracked
from rllib_odac.metrics import FIGURES, LEARNING, METRICS
from rllib_odac.runtime.cluster import Processes, check_room, join_or_start, num_cpus, processes
from rllib_odac.runtime.faults import InterruptedRun
from rllib_odac.storage import PLACE, Storage

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

    from rllib_odac.algorithm import ODAC
    from rllib_odac.runtime.evaluator import Evaluation

CHECKPOINTS_KEPT = 2
MAX_LEARNER_FAILURES = 3  # in a row, without a new checkpoint in between, that a run survives
PACKAGES = ("rllib-odac", "ray", "torch", "gymnasium", "mujoco", "numpy")  # named in the summary

logger = logging.getLogger(__name__)


class LearnerLostError(Exception):
    """The process of a remote learner is dead, or does not answer."""


class Run:
    """A training run bound to its directory.

    Args:
        spec: What to run.
        out: The run's directory, or its URI, such as s3://BUCKET/FOLDER.
        resume: Go on from the newest whole checkpoint in the directory, if there is one.
        on_row: Called with each new row of progress.
        wandb: Project of Weights & Biases that progress is logged to as well.
        mlflow: Experiment of MLflow that it is logged to.

    Raises:
        ValueError: If a setting is wrong, a package is missing, the directory holds another run,
            or this one and `resume` is not set, or it cannot be written.
    """

    def __init__(
        self,
        spec: RunSpec,
        out: PLACE,
        resume: bool = False,
        on_row: LogRow = lambda row: None,
        wandb: str | None = None,
        mlflow: str | None = None,
    ) -> None:
        self._trackers = {"wandb": wandb, "mlflow": mlflow}
        for name, value in self._trackers.items():
            if value is not None:
                check_installed(name, value, package=name)
        self._files = RunFiles(out)
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
        interval = interval or spec.checkpoint_interval_with(self._config)
        self.spec = replace(spec, checkpoint_every=interval)
        if stored:  # the other fields may change on the way
            wanted = {
                name: getattr(spec, name) for name in ("env", "objective", "seed", "settings")
            }
            cure = "resume it with that or give another directory"
            check_same(wanted, stored, f"the run in '{self.out}'", cure)
        elif spec.begin_from is not None:
            from rllib_odac.checkpoints.pretrained import pretrained

            pretrained(self._config, spec.begin_from)  # fails here if it would
        self._files.prepare()

    @property
    def out(self) -> Storage:
        """The run's directory."""
        return self._files.place

    @property
    def summary_if_finished(self) -> dict[str, Any] | None:
        """The summary, if the run has ended as far as its specification asks for."""
        summary: dict[str, Any] | None = self._files.read_json("summary.json")
        if summary is None:
            return None
        is_finished = self._is_finished(self._steps(summary), summary["success_rate"])
        return summary if is_finished else None

    @property
    def processes(self) -> list[Processes]:
        """The processes that this run starts through Ray, beside the one it is called in."""
        return processes(self._config)

    @property
    def steps_saved(self) -> int:
        """Steps of the newest checkpoint; 0 if there is none."""
        for checkpoint in checkpoints_of_run(self.out):
            with contextlib.suppress(ValueError):  # damaged
                return self._steps(read_manifest(checkpoint))
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
        with self._files.locked():
            self._files.write_json("config.json", asdict(self.spec))
            with tracked(self.spec, self.out, **self._trackers) as self._track:
                return self._train_to_the_end()

    def _train_to_the_end(self) -> dict[str, Any]:
        failures, steps_at_failure = 0, -1
        while True:
            try:
                return self._train_until_a_learner_dies()
            except LearnerLostError as error:
                steps = self.steps_saved
                failures = failures + 1 if steps == steps_at_failure else 1
                steps_at_failure = steps
                if failures > MAX_LEARNER_FAILURES:
                    raise RuntimeError(
                        f"A learner was lost {failures} times without a new checkpoint in between; "
                        "the run goes on with --resume."
                    ) from error
                logger.warning(
                    "A learner is lost; the run goes on from its checkpoint at %d steps.",
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
        from ray.exceptions import RayActorError

        from rllib_odac.experiments.tensorboard import open_writer

        algorithm = self._config.build_algo()
        try:
            self._restore(algorithm)
            self._algorithm = algorithm
            with open_writer(self._files.here("tensorboard"), algorithm.steps) as writer:
                self._train(algorithm, writer)
            self._algorithm = None  # what is left is quickly done
            return self._finish(algorithm)
        except Exception as error:
            # Ray takes a while to tell that an actor which does not answer is dead.
            if isinstance(error, RayActorError) or algorithm.has_dead_learner:
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
        saved_at = algorithm.steps
        algorithm.end_at(self.spec.steps)
        algorithm.on_evaluation = self._note_evaluation
        if algorithm.steps >= self.spec.steps:  # only the last evaluation is missing
            self._reported -= 1
            self._evaluate_thoroughly(algorithm, self.rows[-1])
            self._report(writer)
        while (left := self.spec.steps - algorithm.steps) > 0:
            if left < self.spec.evaluate_every:
                algorithm.shorten_iteration(left)
            row = self._row(algorithm, algorithm.train())
            self.rows.append(row)
            is_due = algorithm.steps - saved_at >= self.spec.checkpoint_interval
            is_due = is_due or algorithm.is_losing_a_node
            if is_due:
                algorithm.drain()  # a checkpoint needs it, and it may bring the last steps
            is_finished = algorithm.steps >= self.spec.steps
            if is_finished or self._looks_solved:
                figures = self._evaluate_thoroughly(algorithm, row)
                is_finished = self._is_finished(algorithm.steps, figures.get("success_rate"))
            row["wall_s"] = round(time.perf_counter() - start, 2)
            self._report(writer, waiting=algorithm.evaluated_env_steps)
            if is_finished:
                return
            if is_due:
                self._save_checkpoint(algorithm)
                saved_at = algorithm.steps

    def _evaluate_thoroughly(self, algorithm: ODAC, row: dict[str, Any]) -> dict[str, Any]:
        """Gives a row, the last as it seems, the figures of `final_episodes`, or no figures."""
        algorithm.drain()
        figures = {}
        if self.spec.env is not None:
            figures = algorithm.evaluate_held_out(self.spec.final_episodes)
        row |= {"env_steps": algorithm.env_steps, "updates": algorithm.updates}
        self._figures[algorithm.steps] = figures
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
            waiting: Steps of the row whose evaluation goes on, if there is one.
        """
        from rllib_odac.experiments.tensorboard import write_scalars

        ended = []
        while self._reported < len(self.rows) and self._steps(self.rows[self._reported]) != waiting:
            row = self.rows[self._reported]
            figures = self._figures.pop(self._steps(row), {})
            row |= {name: float(figures[name]) for name in FIGURES if name in figures}
            ended.append(row)
            self._reported += 1
        self._write_progress()
        for row in ended:
            write_scalars(writer, row)
            self._track(row)
            self._on_row(row)

    def _is_finished(self, steps: int, success_rate: float | None) -> bool:
        stop = self.spec.stop_success
        is_solved = stop is not None and success_rate is not None and success_rate >= stop
        return steps >= self.spec.steps or is_solved

    def _steps(self, row: Mapping[str, Any]) -> int:
        """Progress in a row, a summary or a manifest: updates where there is only a log."""
        return int(row["updates" if self._config.offline else "env_steps"])

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

        self._save(algorithm, self.out / FINAL)
        if self.spec.env is not None:
            plot_learning_curve(
                pd.DataFrame(self.rows),
                self._files.here("learning_curve.png"),
                f"{self.spec.objective} on {self.spec.env}, seed {self.spec.seed}",
            )
            self._files.publish("learning_curve.png")
        versions = {name: version(name) for name in PACKAGES}
        summary = self.rows[-1] | {
            "env": self.spec.env,
            "objective": self.spec.objective,
            "seed": self.spec.seed,
            "evaluation_episodes": self.spec.final_episodes,
            "faults": asdict(algorithm.fault_counters),
            "versions": versions | {"python": platform.python_version()},
        }
        self._files.write_json("summary.json", summary)
        return summary

    # Checkpoints and resuming ---------------------------------------------------------------------

    def _save_checkpoint(self, algorithm: ODAC) -> None:
        """Writes a checkpoint, and removes the oldest."""
        directory = self.out / CHECKPOINTS
        self._save(algorithm, directory / f"step_{algorithm.steps:09d}")
        kept = [each for each in checkpoints_of_run(self.out) if each.parent == directory]
        for old in kept[CHECKPOINTS_KEPT:]:
            old.remove()

    def _save(self, algorithm: ODAC, place: Storage) -> None:
        self._files.publish("tensorboard")
        self._files.check()
        algorithm.save_to_path(place)

    def _restore(self, algorithm: ODAC) -> None:
        """Restores the newest whole checkpoint, if there is one, and the progress until then."""
        self.rows, self._figures, self._looks_solved = [], {}, False
        restored = restore_newest(self.out, algorithm.restore_from_path)
        if restored is None and self.spec.begin_from is not None:
            algorithm.begin_with(self.spec.begin_from)
        if restored is not None:
            text = io.StringIO(self._files.read_text("progress.csv"))
            progress = pd.read_csv(text, float_precision="round_trip")
            kept = progress[progress.apply(self._steps, axis=1) <= algorithm.steps]
            self.rows = [
                {str(name): value for name, value in row.items() if not pd.isna(value)}
                for row in kept.to_dict("records")
            ]
        self._reported = len(self.rows)
        self._write_progress()

    def _write_progress(self) -> None:
        progress = pd.DataFrame(self.rows, columns=list(METRICS))
        self._files.write_text("progress.csv", progress.to_csv(index=False))

    def _read_config(self, resume: bool) -> dict[str, Any]:
        """The stored config.json; empty where the directory is new.

        Raises:
            ValueError: If there is a run, and it is not to be resumed.
        """
        stored: dict[str, Any] | None = self._files.read_json("config.json")
        if stored is None:
            return {}
        if not resume:
            raise ValueError(
                f"out is '{self.out}', which holds a run of {stored['env']} already; give another "
                "directory, or --resume to go on with it."
            )
        return stored
