"""`ODAC`: the RLlib Algorithm that passes episode references from env runners to learners."""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Collection
from dataclasses import replace
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
from rllib_odac.learner import UPDATES_PER_DRAW, ODACTorchLearner
from rllib_odac.pipeline import Guidance, LearnerResult, Learning, Sample, Sampling, wait
from rllib_odac.policy.files import write_policy

ALGORITHM_STATE = "odac"
MANIFEST = "odac.json"
CHECKPOINT_VERSION = 1
REPLAY_DIRECTORY = "replay"
UPDATES_PER_CALL = UPDATES_PER_DRAW  # of learners, while samples are under way


class ODAC(Algorithm):
    """Outcome-Driven Actor-Critic on RLlib's new API stack.

    `training_step` moves references only: env runners put whole episodes into the object store,
    learners take them out into their own replay shard and update from it. See `pipeline`.
    """

    config: ODACConfig

    @classmethod
    @override(Algorithm)
    def get_default_config(cls) -> ODACConfig:
        """A configuration with every setting at its default."""
        return ODACConfig()

    @override(Algorithm)
    def setup(self, config: ODACConfig) -> None:
        self.env_steps = 0  # collected since the beginning of the run
        self.updates = 0  # made by each learner
        self._next_learner = 0  # which one gets the next episodes
        self._replay_ready = False  # whether every learner has episodes to learn from
        self._last_step: float = math.inf  # environment steps after which no more are asked for
        check_room(processes(config))  # before RLlib waits for actors that find no place
        super().setup(config)
        is_remote = self.env_runner_group.num_remote_env_runners() > 0
        self._sampling = (
            Sampling(self.env_runner_group, config.sample_timeout_s) if is_remote else None
        )
        self._learning = Learning(self.learner_group, publish=is_remote)
        self._shards: list[list[Any]] = self._empty_shards()  # episodes for each learner's replay
        self._guidance = Guidance()  # what env runners are told with the next request

    @override(Algorithm)
    def training_step(self) -> None:
        """Collects and updates.

        With env runners in its own process, and in synchronous mode, it is a round: a fragment
        from every env runner, all updates owed for it, the new weights to the env runners. In
        asynchronous mode it passes on whatever has come about since the last time.
        """
        with self.metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            if self._sampling is None:
                samples = [self._sample_locally()]
            elif self.config.is_asynchronous:
                self._request_samples(self._sampling)
                samples = self._sampling.take(self._wait_for_any(self._sampling))
            else:
                samples = self._sample_in_step(self._sampling)
        self._take_samples(samples)
        with self.metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            if self.config.is_asynchronous:
                if self._can_call_learners:
                    self._call_learners(UPDATES_PER_CALL)
            elif samples:
                self._call_learners()
                self._await_learners()

    # Samples --------------------------------------------------------------------------------------

    def _sample_locally(self) -> Sample:
        before = self.env_runner.env_steps
        episodes = self.env_runner.sample()
        steps = self.env_runner.env_steps - before
        return Sample(episodes or None, steps, self.env_runner.get_metrics(), self.updates)

    def _sample_in_step(self, sampling: Sampling) -> list[Sample]:
        """Asks every env runner for a fragment, and waits for it."""
        for runner in sampling.free_runners(requests_each=1):
            self._request(sampling, runner)
        timeout_s = self.config.sample_timeout_s
        return sampling.take(wait(sampling.references, timeout_s, len(sampling.expected)))

    def _request_samples(self, sampling: Sampling) -> None:
        """Keeps env runners busy as long as learners are not too far behind them."""
        for runner in sampling.free_runners(self.config.max_requests_in_flight_per_env_runner):
            if not self._may_request(sampling):
                return
            self._request(sampling, runner)

    def _may_request(self, sampling: Sampling) -> bool:
        """Whether another fragment leaves learners at most `max_weight_lag` updates behind.

        A fragment that asks for more than that by itself is collected when all else is done. And
        before there is anything to learn from, nobody is behind.
        """
        expected = sampling.env_steps_expected
        behind = self._updates_due(self.env_steps + expected + self._fragment) - self.updates
        if behind <= self.config.max_weight_lag or not self._replay_ready:
            return True
        return expected == 0 and self.updates >= self._updates_due(self.env_steps)

    def _request(self, sampling: Sampling, runner: int) -> None:
        left = self._last_step - self.env_steps - sampling.env_steps_expected
        if left > 0:
            # All environments of a runner make their steps together.
            env_steps = max(min(self._fragment, left), self.config.num_envs_per_env_runner)
            sampling.request(runner, int(env_steps), self._guidance)

    @property
    def _fragment(self) -> int:
        """Environment steps of one request."""
        config = self.config
        return config.get_rollout_fragment_length() * config.num_envs_per_env_runner

    def _take_samples(self, samples: list[Sample]) -> None:
        for sample in samples:
            self.env_steps += sample.env_steps
            if sample.episodes is not None:
                self._shards[self._next_learner].append(sample.episodes)
                self._next_learner = (self._next_learner + 1) % len(self._shards)
            self.metrics.log_value("weight_lag", self.updates - sample.updates, reduce="max")
        if samples:
            self.metrics.aggregate([sample.metrics for sample in samples], key=ENV_RUNNER_RESULTS)

    def _empty_shards(self) -> list[list[Any]]:
        return [[] for _ in range(max(1, self.config.num_learners))]

    # Updates --------------------------------------------------------------------------------------

    def _updates_due(self, env_steps: int) -> int:
        """Updates that so many environment steps ask for."""
        steps = env_steps - self.config.num_steps_before_learning
        return max(0, int(steps * self.config.updates_per_env_step))

    def _updates_owed(self) -> int:
        """Updates due that no learner has been asked for."""
        if not self._replay_ready:
            return 0
        made = self.updates + self._learning.updates_in_flight
        return max(0, self._updates_due(self.env_steps) - made)

    def _call_learners(self, max_updates: int | None = None) -> None:
        """Hands learners the new episodes and has them make updates that are owed, all or some."""
        owed = self._updates_owed()
        self._learning.call(
            self._shards,
            num_updates=owed if max_updates is None else min(owed, max_updates),
            timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: self.env_steps},
        )
        self._shards = self._empty_shards()
        self._take_results(())  # a local learner has answered already

    @property
    def _can_call_learners(self) -> bool:
        """Whether there is something for learners to do that they have not been asked for."""
        return self._learning.has_room and (any(self._shards) or self._updates_owed() > 0)

    def _await_learners(self) -> None:
        while references := self._learning.references:
            self._take_results(wait(references, timeout_s=60))

    def _wait_for_any(self, sampling: Sampling) -> set[Any]:
        """Samples that have arrived; waits if there is nothing else to do."""
        references = [*sampling.references, *self._learning.references]
        if not references and not self._can_call_learners:
            time.sleep(0.1)  # no env runner is alive: RLlib is to look again, but not at once
        ready = wait(references, timeout_s=0 if self._can_call_learners else 1)
        self._take_results(ready)
        return ready

    def _take_results(self, ready: Collection[Any]) -> None:
        """Takes in what learners have answered."""
        for num_updates, results in self._learning.take(ready):
            self.updates += num_updates
            self._replay_ready = min(result.replay_transitions for result in results) > 0
            self.metrics.aggregate([result.metrics for result in results], key=LEARNER_RESULTS)
            seconds = max(result.seconds for result in results)
            self.metrics.log_value("learner_seconds", seconds, reduce="lifetime_sum")
            if num_updates and self._sampling is None:
                with self.metrics.log_time((TIMERS, SYNCH_WORKER_WEIGHTS_TIMER)):
                    self.env_runner_group.sync_weights(
                        from_worker_or_learner_group=self.learner_group,
                        policies=[DEFAULT_MODULE_ID],
                        inference_only=True,
                    )
            self._guide(results)

    def _guide(self, results: list[LearnerResult]) -> None:
        """Notes the newest weights, and goals that learners drew from what was achieved."""
        guidance = self._guidance
        for weights in [result.weights for result in results if result.weights is not None]:
            guidance = replace(guidance, weights=weights, updates=self.updates)
        goals = [r.exploration_goals for r in results if r.exploration_goals is not None]
        if goals:
            drawn = np.concatenate(goals)
            self.env_runner.set_exploration_goals(drawn)  # whose state is what a checkpoint holds
            if self._sampling is not None:
                guidance = replace(guidance, exploration_goals=ray.put(drawn))
        self._guidance = guidance

    def drain(self) -> None:
        """Waits for all that is under way and not overdue, and makes every update owed."""
        if self._sampling is not None:
            while references := self._sampling.expected:
                self._take_samples(self._sampling.take(wait(references, timeout_s=1)))
        self._await_learners()
        while any(self._shards) or self._updates_owed() > 0:
            self._call_learners()
            self._await_learners()

    def end_at(self, env_steps: int) -> None:
        """Asks remote env runners for no more than so many environment steps in all."""
        self._last_step = env_steps

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

    # Checkpoints ----------------------------------------------------------------------------------

    @override(Algorithm)
    def save_to_path(self, path: Any = None, **kwargs: Any) -> str:
        """Saves everything that training needs to go on, the replay of every learner included.

        An env runner in this process drops the episodes that are going on, so that a run that
        continues and one that is restored do the same from here on. Remote ones just go on.
        """
        self.drain()
        if self._sampling is None:
            self.env_runner.drop_open_episodes()
        path = super().save_to_path(path, **kwargs)
        write_policy(path, self)
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
            if self._sampling is not None:
                self._sampling.forget()
            self._learning.forget()
            self._shards = self._empty_shards()
        for group in (self.env_runner_group, self.eval_env_runner_group):
            if group is not None:
                group.foreach_env_runner(lambda runner: runner.forget_weights_version())
        self.env_runner_group.foreach_env_runner(lambda runner: runner.drop_open_episodes())
        super().restore_from_path(path, *args, **kwargs)
        self._guidance = Guidance(updates=self.updates)
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
            num_learners = max(1, self.config.num_learners)  # which may be fewer than there were
            self._next_learner = state[ALGORITHM_STATE]["next_learner"] % num_learners
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
