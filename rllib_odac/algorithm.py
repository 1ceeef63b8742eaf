"""`ODAC`: the RLlib Algorithm that passes episode references from env runners to learners."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.annotations import override
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    SYNCH_WORKER_WEIGHTS_TIMER,
    TIMERS,
)

from rllib_odac.cluster import check_room, processes
from rllib_odac.config import ODACConfig
from rllib_odac.env_runner import GoalEnvRunner
from rllib_odac.evaluation.evaluate import evaluate_episodes, summarize
from rllib_odac.learner import ODACTorchLearner

ALGORITHM_STATE = "odac"
MANIFEST = "odac.json"
CHECKPOINT_VERSION = 1
REPLAY_DIRECTORY = "replay"
NUM_EXPLORATION_GOALS = 256  # achieved goals that each learner draws anew in every round


class ODAC(Algorithm):
    """Outcome-Driven Actor-Critic on RLlib's new API stack.

    `training_step` moves references only: env runners put whole episodes into the object store,
    learners take them out into their own replay shard and update from it.
    """

    config: ODACConfig

    @classmethod
    @override(Algorithm)
    def get_default_config(cls) -> ODACConfig:
        return ODACConfig()

    @override(Algorithm)
    def setup(self, config: ODACConfig) -> None:
        self.env_steps = 0  # collected since the beginning of the run
        self.updates = 0  # made by each learner
        self._next_learner = 0  # which one gets the next episodes
        self._replay_ready = False  # whether every learner has episodes to learn from
        check_room(processes(config))  # before RLlib waits for actors that find no place
        super().setup(config)

    @override(Algorithm)
    def training_step(self) -> None:
        """One round: collect a fragment on every env runner, update, send the new weights."""
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            shards, steps = self._collect()
        self.env_steps += steps
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            num_updates = self._updates_owed() if steps and self._replay_ready else 0
            results = self.learner_group.foreach_learner(
                _update_learner,
                shards=shards,
                num_updates=num_updates,
                timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: self.env_steps},
            )
            metrics, transitions, goals = zip(*[result.get() for result in results], strict=True)
            self.metrics.aggregate(list(metrics), key=LEARNER_RESULTS)
            self.updates += num_updates
            self._replay_ready = min(transitions) > 0
        if num_updates:
            with self.metrics.log_time((TIMERS, SYNCH_WORKER_WEIGHTS_TIMER)):
                self.env_runner_group.sync_weights(
                    from_worker_or_learner_group=self.learner_group,
                    policies=[DEFAULT_MODULE_ID],
                    inference_only=True,
                )

        self._spread_exploration_goals([drawn for drawn in goals if drawn is not None])

    def _spread_exploration_goals(self, goals: list[Any]) -> None:
        """Sends goals that learners drew from what was achieved to every env runner."""
        if not goals:
            return
        drawn = np.concatenate(goals)
        self.env_runner.set_exploration_goals(drawn)  # whose state is what a checkpoint holds
        if self.env_runner_group.num_remote_env_runners() == 0:
            return
        reference = ray.put(drawn)  # once into the object store, however many env runners
        self.env_runner_group.foreach_env_runner(
            lambda runner: runner.set_exploration_goals(ray.get(reference)),
            local_env_runner=False,
            timeout_seconds=0,  # nobody waits for it
        )

    def _collect(self) -> tuple[list[list[Any]], int]:
        """Samples from every env runner.

        Returns:
            For each learner the episodes, or references to them, that are new to it; and the
            number of environment steps made.
        """
        shards: list[list[Any]] = [[] for _ in range(max(1, self.config.num_learners))]
        if self.env_runner_group.num_remote_env_runners() == 0:
            before = self.env_runner.env_steps
            batches: list[Any] = [[episode] for episode in self.env_runner.sample()]
            steps = self.env_runner.env_steps - before
            metrics = [self.env_runner.get_metrics()]
        else:
            samples = self.env_runner_group.foreach_env_runner(
                _sample_reference,
                local_env_runner=False,
                timeout_seconds=self.config.sample_timeout_s,
            )
            for sample in samples:
                if isinstance(sample, Exception):
                    raise sample
            batches = [reference for reference, _, _ in samples if reference is not None]
            steps = sum(count for _, count, _ in samples)
            metrics = [metrics for _, _, metrics in samples]
        for batch in batches:
            shards[self._next_learner].append(batch)
            self._next_learner = (self._next_learner + 1) % len(shards)
        self.metrics.aggregate(metrics, key=ENV_RUNNER_RESULTS)
        return shards, steps

    def shorten_iteration(self, env_steps: int) -> None:
        """Makes the next `train()` end after so many environment steps, whole rounds of them."""
        config = self.config.copy(copy_frozen=False)
        self.config = config.reporting(min_sample_timesteps_per_iteration=env_steps)
        self.config.freeze()

    def evaluate_held_out(self, num_episodes: int, seed: int = 0) -> dict[str, float]:
        """Evaluates deterministically on held-out goals; see `evaluation.evaluate.summarize`."""
        group = self.eval_env_runner_group or self.env_runner_group
        group.sync_weights(
            from_worker_or_learner_group=self.learner_group,
            timeout_seconds=None,
            inference_only=True,
        )
        return summarize(evaluate_episodes(group, num_episodes, seed))

    def _updates_owed(self) -> int:
        steps = self.env_steps - self.config.num_steps_before_learning
        return max(0, int(steps * self.config.updates_per_env_step) - self.updates)

    # Checkpoints ----------------------------------------------------------------------------------

    @override(Algorithm)
    def save_to_path(self, path: Any = None, **kwargs: Any) -> str:
        """Saves everything that training needs to go on, the replay of every learner included.

        Episodes that are going on are dropped in the run that continues too, so that it and a
        restored one do the same from here on.
        """
        self.env_runner_group.foreach_env_runner(lambda runner: runner.drop_open_episodes())
        path = super().save_to_path(path, **kwargs)
        directory = Path(path) / REPLAY_DIRECTORY
        directory.mkdir(exist_ok=True)
        results = self.learner_group.foreach_learner(
            functools.partial(ODACTorchLearner.save_replay, directory=str(directory))
        )
        manifest = self._signature() | {
            "version": CHECKPOINT_VERSION,
            "env_steps": self.env_steps,
            "updates": self.updates,
            "replay_shards": [result.get() for result in results],
        }
        (Path(path) / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        return path

    def _signature(self) -> dict[str, Any]:
        """What a checkpoint must have in common with the algorithm that it is restored into."""
        observation, action = self.spaces[DEFAULT_MODULE_ID]
        sizes = {name: list(space.shape) for name, space in observation.spaces.items()}
        return {
            "env": str(self.config.env),
            "spaces": sizes | {"actions": list(action.shape)},
            "objective": type(self.config.build_objective()).__name__,
        }

    @override(Algorithm)
    def restore_from_path(self, path: Any, *args: Any, **kwargs: Any) -> None:
        manifest = None
        if kwargs.get("component") is None:
            manifest = read_manifest(Path(path))
            for name, ours in self._signature().items():
                if manifest.get(name, ours) != ours:
                    raise ValueError(
                        f"The checkpoint '{path}' is of {manifest[name]!r}, but this is {ours!r}; "
                        "restore it into an algorithm for the same environment and objective."
                    )
        for group in (self.env_runner_group, self.eval_env_runner_group):
            if group is not None:
                group.foreach_env_runner(lambda runner: runner.forget_weights_version())
        self.env_runner_group.foreach_env_runner(lambda runner: runner.drop_open_episodes())
        super().restore_from_path(path, *args, **kwargs)
        self.env_runner_group.foreach_env_runner(
            functools.partial(GoalEnvRunner.reseed, env_steps=self.env_steps),
            local_env_runner=False,
        )
        if manifest is not None:
            results = self.learner_group.foreach_learner(
                functools.partial(
                    ODACTorchLearner.load_replay,
                    directory=str(Path(path) / REPLAY_DIRECTORY),
                    shards=manifest["replay_shards"],
                    num_learners=max(1, self.config.num_learners),
                )
            )
            for result in results:
                result.get()

    @override(Algorithm)
    def get_state(self, components: Any = None, **kwargs: Any) -> dict[str, Any]:
        state = super().get_state(components, **kwargs)
        if self._check_component(ALGORITHM_STATE, components, kwargs.get("not_components")):
            state[ALGORITHM_STATE] = {
                "env_steps": self.env_steps,
                "updates": self.updates,
                "next_learner": self._next_learner,
                "replay_ready": self._replay_ready,
            }
        return state

    @override(Algorithm)
    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        if ALGORITHM_STATE in state:
            self.env_steps = state[ALGORITHM_STATE]["env_steps"]
            self.updates = state[ALGORITHM_STATE]["updates"]
            self._next_learner = state[ALGORITHM_STATE]["next_learner"]
            self._replay_ready = state[ALGORITHM_STATE]["replay_ready"]


def read_manifest(checkpoint: Path) -> dict[str, Any]:
    """What a checkpoint says of itself; it is written last, so without it nothing is whole.

    Raises:
        ValueError: If the directory is no whole checkpoint of ODAC.
    """
    try:
        manifest: dict[str, Any] = json.loads((checkpoint / MANIFEST).read_text())
    except (OSError, ValueError):
        inside = " (its checkpoint_final is)" if (checkpoint / "checkpoint_final").is_dir() else ""
        raise ValueError(f"'{checkpoint}' is no whole checkpoint of ODAC{inside}.") from None
    if manifest.get("version") != CHECKPOINT_VERSION:
        raise ValueError(
            f"'{checkpoint}' is a checkpoint of version {manifest.get('version')}, but only "
            f"version {CHECKPOINT_VERSION} can be read."
        )
    return manifest


def _sample_reference(runner: Any) -> tuple[Any, int, Any] | Exception:
    """Runs on an env runner: episodes stay in its object store, only a reference travels.

    An environment's error is returned, for the driver to raise. RLlib would take a raised one for
    the death of the runner, and restart it for ever.
    """
    before = runner.env_steps
    try:
        episodes = runner.sample()
    except Exception as error:
        # RLlib raises an empty error from the true one, a link that does not survive the journey.
        return (
            error if str(error) or not isinstance(error.__cause__, Exception) else error.__cause__
        )
    reference = ray.put(episodes) if episodes else None
    return reference, runner.env_steps - before, runner.get_metrics()


def _update_learner(
    learner: ODACTorchLearner, shards: list[list[Any]], num_updates: int, timesteps: dict[str, int]
) -> tuple[Any, int, Any]:
    """Runs on a learner; returns its metrics, the size of its replay and goals to explore with."""
    mine = shards[learner._learner_index]
    references = [batch for batch in mine if isinstance(batch, ray.ObjectRef)]
    episodes = [episode for batch in mine if isinstance(batch, list) for episode in batch]
    metrics = learner.update(
        episodes=episodes, episodes_refs=references, num_updates=num_updates, timesteps=timesteps
    )
    return metrics, len(learner.replay), learner.draw_exploration_goals(NUM_EXPLORATION_GOALS)
