"""`ODAC`: the RLlib Algorithm, a thin shell around `runtime` and `checkpoints`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Any, Self

import ray
from pyarrow.fs import FileSystem
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.callbacks.utils import make_callback
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.utils.annotations import override
from ray.rllib.utils.metrics import EVALUATION_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME
from ray.tune import Checkpoint

from rllib_odac.checkpoints.checkpointer import Checkpointer
from rllib_odac.checkpoints.find import open_checkpoint
from rllib_odac.checkpoints.manifest import REPLAY_DIRECTORY
from rllib_odac.checkpoints.networks import plain_files
from rllib_odac.checkpoints.pretrained import begin_with
from rllib_odac.config import ODACConfig
from rllib_odac.env_runner import GoalEnvRunner
from rllib_odac.envs.actions import actions_of
from rllib_odac.ray_compat import next_checkpoint
from rllib_odac.runtime.cluster import check_room, processes
from rllib_odac.runtime.env_runner_requests import stop_env_runners
from rllib_odac.runtime.evaluation import Evaluations, rllib_results
from rllib_odac.runtime.evaluator import Evaluation, Evaluator
from rllib_odac.runtime.faults import FaultCounters, InterruptedRun
from rllib_odac.runtime.notices import Notices
from rllib_odac.runtime.training import Training
from rllib_odac.storage import Storage

ALGORITHM_STATE = "odac"


class ODAC(Algorithm):
    """Outcome-Driven Actor-Critic on RLlib's new API stack.

    Training moves references only: env runners put whole episodes into the object store, learners
    take them out into their own replay shard and update from it. See `runtime.training`.
    """

    config: ODACConfig

    @classmethod
    @override(Algorithm)
    def get_default_config(cls) -> ODACConfig:
        """A configuration with every setting at its default."""
        return ODACConfig()

    @override(Algorithm)
    def setup(self, config: ODACConfig) -> None:
        check_room(processes(config))  # before RLlib waits for actors that find no place
        super().setup(config)
        self.is_interrupted = False  # whether training is to stop before its next step
        self.is_losing_a_node = False  # whether one is going away since the last iteration
        self._last_update = 0  # of the iteration, where it learns from a log alone
        self._notices = Notices()
        self._training = Training(config, self.env_runner_group, self.learner_group, self.metrics)
        self._checkpointer = Checkpointer(
            self.learner_group, self._signature(), self._plain_files, config.saves_replay
        )
        group = self.eval_env_runner_group or self.env_runner_group
        self._evaluations = Evaluations(
            Evaluator(
                group,
                weights=self._training.calls.published_weights,
                sync=functools.partial(self._sync_weights_of, group),
                timeout_s=config.evaluation_sample_timeout_s,
            ),
            self._training.accounting,
            on_start=functools.partial(self._call_back, "on_evaluate_start"),
            on_end=self._evaluation_ended,
        )
        self.on_evaluation: Callable[[Evaluation], object] = lambda evaluation: None

    @override(Algorithm)
    def training_step(self) -> None:
        """Collects and updates.

        See `Training.step` and, where a log is all there is, `Training.learn_from_log`.

        Raises:
            InterruptedRun: If `is_interrupted`.
            EnvRunnersLostError: If no env runner comes back, or none brings anything for too long.
        """
        while not self.is_interrupted and self.updates < self._last_update:
            self._training.learn_from_log(self._last_update)
        if self.is_interrupted:
            raise InterruptedRun
        if not self.config.offline:
            self._training.step()
        self._evaluations.look()
        if self._notices.has_news():
            self.is_losing_a_node = True
            self.shorten_iteration(1)  # so that its end can be saved in time

    @override(Algorithm)
    def step(self) -> dict[str, Any]:
        config, self.is_losing_a_node = self.config, False
        if config.offline:
            self._last_update = self.updates + config.min_sample_timesteps_per_iteration
            self.shorten_iteration(0)  # to one training step, which makes all these updates
        try:
            result: dict[str, Any] = super().step()
        finally:
            self.config = config
        alive = self.env_runner_group.num_healthy_remote_env_runners()
        result["faults"] = asdict(self.fault_counters) | {"env_runners_alive": alive}
        return result

    @property
    def env_steps(self) -> int:
        """Environment steps collected since the beginning of the run."""
        return self._training.env_steps

    @property
    def steps(self) -> int:
        """The progress of a run: environment steps, or updates where it learns from a log."""
        return self.updates if self.config.offline else self.env_steps

    @property
    def updates(self) -> int:
        """Updates made by each learner since the beginning of the run."""
        return self._training.updates

    @property
    def fault_counters(self) -> FaultCounters:
        """What faults have cost."""
        return self._training.accounting.counters

    @property
    def has_dead_learner(self) -> bool:
        """Whether a learner's process is dead: the others wait for it, and all must begin anew."""
        return self._training.calls.has_dead_learner()

    @property
    def can_be_saved(self) -> bool:
        """Whether learners are whole and at rest between updates, whatever else has failed."""
        return not self._training.calls.has_failed and not self.has_dead_learner

    @override(Algorithm)
    def restore_env_runners(self, env_runner_group: EnvRunnerGroup) -> list[int]:
        requests = self._training.requests
        if env_runner_group is not self.env_runner_group or requests is None:
            restored: list[int] = super().restore_env_runners(env_runner_group)
            return restored
        if restarted := requests.restarted():
            state = self.env_runner.get_state() | {NUM_ENV_STEPS_SAMPLED_LIFETIME: self.env_steps}
            reference = ray.put(state)
            for runner in restarted:
                requests.set_state(runner, reference)
        return restarted

    @override(Algorithm)
    def cleanup(self) -> None:
        # RLlib would wait for ever for one that stalls, or that Ray finds no place for.
        for name in ("env_runner_group", "eval_env_runner_group"):
            if (group := getattr(self, name, None)) is not None:
                stop_env_runners(group)
        super().cleanup()

    def drain(self) -> None:
        """Waits for all that is under way and not overdue, and makes every update owed."""
        self._training.drain()

    def cancel_samples(self) -> None:
        """Gives up what env runners are collecting, so that what has arrived can be saved."""
        self._training.cancel_samples()

    def end_at(self, env_steps: int) -> None:
        """Asks remote env runners for no more than so many environment steps in all."""
        self._training.end_at(env_steps)

    def shorten_iteration(self, env_steps: int) -> None:
        """Makes the next `train()` end after so many environment steps, whole rounds of them."""
        config = self.config.copy(copy_frozen=False)
        self.config = config.reporting(min_sample_timesteps_per_iteration=env_steps)
        self.config.freeze()

    @override(Algorithm)
    def get_module(self, module_id: str = DEFAULT_MODULE_ID) -> Any:
        """The module of this process, with the weights that the learners have now."""
        if self._training.requests is not None:
            self._training.sync_weights()
        return super().get_module(module_id)

    # Evaluation -----------------------------------------------------------------------------------

    @override(Algorithm)
    def evaluate(self, parallel_train_future: Any = None) -> dict[str, Any]:
        """Evaluates `evaluation_duration` episodes as `evaluate_held_out` does."""
        if self.config.custom_evaluation_function is not None:
            own: dict[str, Any] = super().evaluate(parallel_train_future)
            return own
        return rllib_results(self.evaluate_held_out(self.config.evaluation_duration))

    def evaluate_held_out(self, num_episodes: int, seed: int = 0) -> dict[str, float]:
        """Evaluates deterministically on held-out goals; see `runtime.evaluator.summarize`.

        Raises:
            EvaluationLostError: If its env runners die again and again, or stall.
            Exception: Any that an environment raised.
        """
        return self._evaluations.now(self.steps, num_episodes, seed)

    @property
    def evaluated_env_steps(self) -> int | None:
        """Environment steps at which the evaluation under way began, if there is one."""
        return self._evaluations.env_steps

    @override(Algorithm)
    def _run_one_evaluation(self, parallel_train_future: Any = None) -> dict[str, Any]:
        """Begins an evaluation beside training.

        Results have the newest that has ended, with the `env_steps` that it began at;
        `on_evaluation` is called with each, soon after its end.
        """
        if self.config.custom_evaluation_function is not None:
            own: dict[str, Any] = super()._run_one_evaluation(parallel_train_future)
            return own
        self._evaluations.begin(self.steps, self.config.evaluation_duration)
        return {EVALUATION_RESULTS: rllib_results(self._evaluations.figures)}

    def _evaluation_ended(self, evaluation: Evaluation) -> None:
        results = rllib_results(self._evaluations.figures)
        self._call_back("on_evaluate_end", evaluation_metrics=results)
        self.on_evaluation(evaluation)

    def _call_back(self, name: str, **arguments: Any) -> None:
        make_callback(
            name,
            callbacks_objects=self.callbacks,
            callbacks_functions=getattr(self.config, f"callbacks_{name}"),
            kwargs={"algorithm": self, "metrics_logger": self.metrics, **arguments},
        )

    def _sync_weights_of(self, group: EnvRunnerGroup) -> None:
        with self._supervised("hand over their weights"):
            group.sync_weights(
                from_worker_or_learner_group=self.learner_group,
                timeout_seconds=None,
                inference_only=True,
            )

    # Checkpoints ----------------------------------------------------------------------------------

    @override(Algorithm)
    def save_to_path(
        self, path: Any = None, *, filesystem: FileSystem | None = None, **kwargs: Any
    ) -> str:
        """Saves everything that training needs to go on, the replay of every learner included.

        An env runner in this process drops the episodes that are going on, so that a run that
        continues and one that is restored do the same from here on. Remote ones go on with theirs.

        Raises:
            OSError: If it cannot be written; then nothing of it is left.
        """
        self.drain()
        unfinished, went_on = self._training.rest_env_runners()
        content = {
            "steps": self.steps,
            "env_steps": self.env_steps,
            "updates": self.updates,
            "unfinished_episodes": unfinished,
            "went_on": went_on,
        }
        checkpoint = Storage.of(path, filesystem)
        with (
            self._supervised("save"),
            self._checkpointer.writing(checkpoint, content) as target,
        ):
            super().save_to_path(target.path, filesystem=target.filesystem, **kwargs)
        if self._training.requests is None:
            self._training.accounting.drop_unfinished()
        return checkpoint.path

    def begin_with(self, path: Any) -> None:
        """Takes over the networks of a checkpoint alone; see `checkpoints.pretrained`."""
        begin_with(self.config, self.learner_group, path)
        self._training.sync_weights()

    @override(Algorithm)
    def restore_from_path(
        self, path: Any, *args: Any, filesystem: FileSystem | None = None, **kwargs: Any
    ) -> None:
        """Goes on from a checkpoint, or takes over one `component` of it alone.

        Raises:
            DamagedCheckpoint: If it is not whole. The algorithm is then as it was.
        """
        with self._supervised("restore a checkpoint"):
            self._restore(path, *args, filesystem=filesystem, **kwargs)

    def _restore(self, path: Any, *args: Any, filesystem: FileSystem | None, **kwargs: Any) -> None:
        if kwargs.get("component") is not None:
            checkpoint, manifest = Storage.of(path, filesystem), None
        else:
            checkpoint, manifest = self._checkpointer.open(path, filesystem)
            self._training.cancel()
        for group in (self.env_runner_group, self.eval_env_runner_group):
            if group is not None:
                group.foreach_env_runner(lambda runner: runner.forget_weights_version())
        self.env_runner_group.foreach_env_runner(lambda runner: runner.drop_open_episodes())
        super().restore_from_path(
            checkpoint.path, *args, filesystem=checkpoint.filesystem, **kwargs
        )
        self._training.weights_restored()
        self.env_runner_group.foreach_env_runner(
            functools.partial(GoalEnvRunner.reseed, env_steps=self.env_steps),
            local_env_runner=False,
        )
        if manifest is not None:
            transitions = self._checkpointer.load_replay(checkpoint, manifest)
            self._training.replay_restored(transitions)
            self._training.count_dropped(manifest["went_on"])
            if not checkpoint.is_local:  # RLlib looks for weights on this machine alone
                self._training.sync_weights()

    @classmethod
    @override(Algorithm)
    def from_checkpoint(
        cls, path: Any, filesystem: FileSystem | None = None, **kwargs: Any
    ) -> Self:
        """A new algorithm from a checkpoint, which is checked first.

        Raises:
            DamagedCheckpoint: If it is not whole.
        """
        if isinstance(path, Checkpoint):
            path, filesystem = path.path, path.filesystem
        checkpoint, _ = open_checkpoint(path, filesystem)
        algorithm: Self = super().from_checkpoint(checkpoint.path, checkpoint.filesystem, **kwargs)
        return algorithm

    @override(Algorithm)
    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Saves for Tune: replay goes where Tune will store the rest of the checkpoint, at once."""
        if self._storage is None:
            super().save_checkpoint(checkpoint_dir)
            return
        filesystem, path = next_checkpoint(self._storage)
        replay = Storage(filesystem, path) / REPLAY_DIRECTORY
        try:
            with self._checkpointer.replay_in(replay):
                super().save_checkpoint(checkpoint_dir)
        except BaseException:
            replay.remove()
            raise

    @override(Algorithm)
    def restore(self, checkpoint_path: Any) -> None:
        """Restores what Tune has stored; learners read their replay straight from there."""
        checkpoint = getattr(checkpoint_path, "checkpoint", checkpoint_path)
        if not isinstance(checkpoint, Checkpoint):
            super().restore(checkpoint_path)
            return
        replay = Storage(checkpoint.filesystem, checkpoint.path) / REPLAY_DIRECTORY
        with self._checkpointer.replay_in(replay):
            super().restore(checkpoint_path)

    @override(Algorithm)
    def get_state(self, components: Any = None, **kwargs: Any) -> dict[str, Any]:
        state = super().get_state(components, **kwargs)
        if self._check_component(ALGORITHM_STATE, components, kwargs.get("not_components")):
            state[ALGORITHM_STATE] = self._training.state()
        return state

    @override(Algorithm)
    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        if ALGORITHM_STATE in state:
            self._training.set_state(state[ALGORITHM_STATE])

    def _supervised(self, purpose: str) -> AbstractContextManager[None]:
        """Looks after what is asked of remote learners meanwhile: see `Supervision`."""
        return self._training.calls.supervision.waiting(purpose)

    def _signature(self) -> dict[str, Any]:
        observation, action = self.spaces[DEFAULT_MODULE_ID]
        sizes = {name: list(space.shape) for name, space in observation.spaces.items()}
        return {
            "env": str(self.config.env),
            "spaces": sizes | {"actions": [actions_of(action).width]},
            "objective": type(self.config.build_objective()).__name__,
        }

    def _plain_files(self) -> dict[str, bytes]:
        """The files of a checkpoint that can be read without a pickle, by name."""
        weights = self.learner_group.get_weights()[DEFAULT_MODULE_ID]
        spaces = self.spaces[DEFAULT_MODULE_ID]
        return plain_files(weights, spaces, self.config, self.env_steps, self.updates)
