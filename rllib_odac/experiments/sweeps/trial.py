"""`SweepTrial`: the algorithm as Ray Tune runs it, with a budget and figures in every result."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ray.rllib.utils.annotations import override
from ray.tune import Checkpoint

from rllib_odac.algorithm import ODAC
from rllib_odac.checkpoints.manifest import DamagedCheckpoint
from rllib_odac.config import ODACConfig
from rllib_odac.env_runner import GoalEnvRunner
from rllib_odac.experiments.spec import RunSpec
from rllib_odac.learner import ODACTorchLearner
from rllib_odac.metrics import FIGURES
from rllib_odac.ray_compat import training_result
from rllib_odac.storage import Storage

logger = logging.getLogger(__name__)

RESULT_KEYS = (*FIGURES, "env_steps", "updates", "finished", "done")


class SweepConfig(ODACConfig):
    """`ODACConfig` with the end of a trial: its budget, its stop rule and its last evaluation."""

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class or SweepTrial)
        self.configuration: int | None = None  # its number in the sweep
        self.budget = 100_000  # environment steps
        self.stop_success: float | None = None  # success rate that ends the trial before
        self.final_episodes = 100  # of the last evaluation


class SweepTrial(ODAC):
    """ODAC for Ray Tune.

    Every result has `RESULT_KEYS`, whether or not a training episode ended in that iteration; its
    figures come from held-out goals. A trial ends as `Run` does: at its budget or stop rule, with a
    thorough evaluation.
    """

    config: SweepConfig

    @classmethod
    @override(ODAC)
    def get_default_config(cls) -> SweepConfig:
        return SweepConfig()

    @override(ODAC)
    def setup(self, config: SweepConfig) -> None:
        super().setup(config)
        self._ended = None  # how this trial ended, if an earlier process brought it to its end
        if self._storage is not None:
            with contextlib.suppress(ValueError):  # the file was cut off
                self._ended = self._end_file.read_json()
        if self._ended is not None:
            self._iteration = self._ended["training_iteration"] - 1
            self._time_total = self._ended["time_total_s"]

    @override(ODAC)
    def step(self) -> dict[str, Any]:
        if self._ended is not None:
            return self._ended["result"]
        config = self.config
        left = config.budget - self.env_steps
        result = {}
        if left > 0:  # else it was restored from its last checkpoint
            self.end_at(config.budget)
            if left < config.min_sample_timesteps_per_iteration:
                self.shorten_iteration(left)
            result = super().step()
        solved = left > 0 and self._is_solved(result["evaluation"]["env_runners"])
        if not solved and self.env_steps < config.budget:
            return result | self._summary(result["evaluation"]["env_runners"], finished=False)
        self.drain()
        figures = self.evaluate_held_out(config.final_episodes)
        finished = self._is_solved(figures) or self.env_steps >= config.budget
        return result | self._summary(figures, finished)

    def _is_solved(self, figures: Mapping[str, float]) -> bool:
        stop = self.config.stop_success
        return stop is not None and figures["success_rate"] >= stop

    def _summary(self, figures: Mapping[str, float], finished: bool) -> dict[str, Any]:
        return {
            **{name: float(figures[name]) for name in FIGURES},
            "env_steps": self.env_steps,
            "updates": self.updates,
            "finished": finished,
            "done": finished,
        }

    @override(ODAC)
    def restore_from_path(self, path: Any, *args: Any, **kwargs: Any) -> None:
        super().restore_from_path(path, *args, **kwargs)
        # A member of a population takes over another's networks but keeps its own settings. The
        # learning rate is set by each update; kl_weight is stored with the networks.
        kl_weight = self.config.kl_weight
        if not isinstance(kl_weight, str):  # "auto", which is learned
            set_kl_weight = functools.partial(_set_kl_weight, kl_weight=kl_weight)
            for result in self.learner_group.foreach_learner(set_kl_weight):
                result.get()

    # The end of a trial ---------------------------------------------------------------------------
    #
    # Tune's snapshots of an experiment are seconds apart. After a driver was killed, the last one
    # would have trials that had ended go on from an older checkpoint. So a trial that ends writes
    # its result beside its checkpoints, and reports only that when it is started again.

    @override(ODAC)
    def save(self, checkpoint_dir: str | None = None) -> Any:
        if self._ended is not None:
            path = f"{self._storage.trial_fs_path}/{self._ended['checkpoint']}"
            checkpoint = Checkpoint(path, self._storage.storage_filesystem)
            return training_result(checkpoint, self._ended["result"] | self._totals)
        saved = super().save(checkpoint_dir)
        result = self._last_result or {}
        if self._storage is not None and result.get("finished"):
            ended = {
                "checkpoint": Path(saved.checkpoint.path).name,
                "result": {name: result[name] for name in RESULT_KEYS},
            }
            self._end_file.write_json(self._totals | ended)
        return saved

    @override(ODAC)
    def restore(self, checkpoint_path: Any) -> None:
        """Restores a checkpoint or, if it is damaged or gone, the newest whole one before it.

        A member of a population that takes over another's goes on with random streams of its own.
        """
        if self._ended is not None:
            return
        given = getattr(checkpoint_path, "checkpoint", checkpoint_path)
        if not isinstance(given, Checkpoint):
            super().restore(checkpoint_path)
            return
        metrics = getattr(checkpoint_path, "metrics", {})
        damage = None
        for place in _with_those_before(Storage(given.filesystem, given.path)):
            try:
                if not place.is_directory:
                    raise DamagedCheckpoint(f"The checkpoint '{place}' is gone.")
                super().restore(training_result(Checkpoint(place.path, place.filesystem), metrics))
            except DamagedCheckpoint as error:
                damage = damage or error
                continue
            if damage is not None:
                logger.warning("%s The trial goes on from '%s'.", damage, place)
            if self._storage is not None and place.parent.path != self._storage.trial_fs_path:
                self._reseed(zlib.crc32(self.trial_id.encode()))
            return
        assert damage is not None
        raise damage

    def _reseed(self, clone: int) -> None:
        reseed = functools.partial(GoalEnvRunner.reseed, env_steps=self.env_steps, clone=clone)
        self.env_runner_group.foreach_env_runner(reseed)
        for result in self.learner_group.foreach_learner(
            functools.partial(_reseed_learner, clone=clone)
        ):
            result.get()

    @property
    def _totals(self) -> dict[str, Any]:
        return {"training_iteration": self.iteration, "time_total_s": self._time_total}

    @property
    def _end_file(self) -> Storage:
        storage = self._storage
        return Storage(storage.storage_filesystem, storage.trial_fs_path) / "ended.json"


def trial_parameters(spec: RunSpec, resources: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a trial's `SweepConfig` that differ from the defaults, as Tune passes them on.

    Args:
        spec: The run.
        resources: Further fields of `ODACConfig`: how many processes, and what each takes.

    Raises:
        ValueError: With one sentence on the first setting that is wrong.
    """
    config = spec.config()
    return {
        "env": spec.env,
        "objective": spec.objective,
        "evaluation_num_env_runners": 1 if resources.get("num_env_runners") else 0,
        **spec.settings,
        "seed": spec.seed,
        "rollout_fragment_length": config.rollout_fragment_length,
        "min_sample_timesteps_per_iteration": spec.evaluate_every,
        "evaluation_duration": spec.evaluation_episodes,
        "budget": spec.steps,
        "stop_success": spec.stop_success,
        "final_episodes": spec.final_episodes,
        "log_level": "ERROR",
        **resources,
    }


def _with_those_before(checkpoint: Storage) -> list[Storage]:
    """A checkpoint of Tune's and the earlier ones of the same trial, newest first."""
    names = {name for name in checkpoint.parent.names() if name.startswith("checkpoint_")}
    earlier = sorted((name for name in names if name < checkpoint.name), reverse=True)
    return [checkpoint, *(checkpoint.parent / name for name in earlier)]


def _reseed_learner(learner: ODACTorchLearner, clone: int) -> None:
    entropy = [learner._base_seed, learner.num_updates, clone]
    noise, replay = np.random.SeedSequence(entropy).generate_state(2).tolist()
    learner._noise.manual_seed(noise)
    learner.replay.generator.manual_seed(replay)


def _set_kl_weight(learner: ODACTorchLearner, kl_weight: float) -> None:
    logarithm = math.log(kl_weight) if kl_weight > 0 else -math.inf
    learner.networks.log_kl_weight.fill_(logarithm)
