"""`ODAC`: the RLlib Algorithm that passes episode references from env runners to learners."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import ray
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env.env_runner_group import EnvRunnerGroup
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

from rllib_odac.checkpoints.checkpointer import ResumableAlgorithm
from rllib_odac.config import ODACConfig
from rllib_odac.learner import UPDATES_PER_DRAW
from rllib_odac.runtime.cluster import check_room, processes
from rllib_odac.runtime.env_runner_requests import (
    Guidance,
    Sample,
    Sampling,
    sample_of,
    stop_remote,
)
from rllib_odac.runtime.evaluation import evaluate_episodes, summarize
from rllib_odac.runtime.faults import InterruptedRun, Ledger, Losses
from rllib_odac.runtime.learner_calls import LearnerResult, Learning, wait

UPDATES_PER_CALL = UPDATES_PER_DRAW  # of learners, while samples are under way


class ODAC(ResumableAlgorithm):
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
        # Environment steps and updates when the replay was empty last, from where both are counted.
        self._learning_since = (0, 0)
        self._last_step: float = math.inf  # environment steps after which no more are asked for
        check_room(processes(config))  # before RLlib waits for actors that find no place
        super().setup(config)
        is_remote = self.env_runner_group.num_remote_env_runners() > 0
        self._ledger = Ledger()
        self._sampling = (
            Sampling(
                self.env_runner_group,
                config.sample_timeout_s,
                config.env_runner_restore_timeout_s,
                self._ledger,
            )
            if is_remote
            else None
        )
        self._learning = Learning(self.learner_group, publish=is_remote)
        self._shards: list[list[Any]] = self._empty_shards()  # episodes for each learner's replay
        self._transitions = 0  # in them
        self.is_interrupted = False  # whether training is to stop before its next step
        self._guidance = Guidance()  # what env runners are told with the next request

    @override(Algorithm)
    def training_step(self) -> None:
        """Collects and updates.

        With env runners in its own process, and in synchronous mode, it is a round: a fragment
        from every env runner, all updates owed for it, the new weights to the env runners. In
        asynchronous mode it passes on whatever has come about since the last time.

        Raises:
            InterruptedRun: If `is_interrupted`.
            EnvRunnersLostError: If no env runner comes back, or none brings anything for too long.
        """
        if self.is_interrupted:
            raise InterruptedRun
        if self._sampling is not None:
            self._sampling.look_after()
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

    @override(Algorithm)
    def step(self) -> dict[str, Any]:
        result: dict[str, Any] = super().step()
        alive = self.env_runner_group.num_healthy_remote_env_runners()
        result["faults"] = asdict(self.losses) | {"env_runners_alive": alive}
        return result

    @property
    def losses(self) -> Losses:
        """What faults have cost since the beginning of the run."""
        return self._ledger.losses

    @property
    def has_lost_a_learner(self) -> bool:
        """Whether a learner's process is dead: the others wait for it, and all must begin anew."""
        return self._learning.has_lost_one()

    @property
    def can_be_saved(self) -> bool:
        """Whether learners are whole and at rest between updates, whatever else has failed."""
        return not self._learning.has_failed and not self.has_lost_a_learner

    @override(Algorithm)
    def restore_env_runners(self, env_runner_group: EnvRunnerGroup) -> list[int]:
        if env_runner_group is not self.env_runner_group or self._sampling is None:
            restored: list[int] = super().restore_env_runners(env_runner_group)
            return restored
        if revived := self._sampling.revived():
            state = self.env_runner.get_state() | {NUM_ENV_STEPS_SAMPLED_LIFETIME: self.env_steps}
            reference = ray.put(state)
            for runner in revived:
                self._sampling.set_state(runner, reference)
        return revived

    @override(Algorithm)
    def cleanup(self) -> None:
        # RLlib would wait for ever for one that stalls, or that Ray finds no place for.
        for name in ("env_runner_group", "eval_env_runner_group"):
            if (group := getattr(self, name, None)) is not None:
                stop_remote(group)
        super().cleanup()

    # Samples --------------------------------------------------------------------------------------

    def _sample_locally(self) -> Sample:
        return replace(sample_of(self.env_runner), updates=self.updates)

    def _sample_in_step(self, sampling: Sampling) -> list[Sample]:
        """Asks every env runner for a fragment, and waits for it."""
        for runner in sampling.free_runners(requests_each=1):
            self._request(sampling, runner)
        if not sampling.references:
            time.sleep(0.1)  # no env runner is alive
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
            self._transitions += sample.transitions
            self._ledger.arrived(sample)
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
        since, updates = self._learning_since
        steps = env_steps - since - self.config.num_steps_before_learning
        return updates + max(0, int(steps * self.config.updates_per_env_step))

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
            self._transitions,
            num_updates=owed if max_updates is None else min(owed, max_updates),
            timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: self.env_steps},
        )
        self._shards, self._transitions = self._empty_shards(), 0
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
        for call in self._learning.take(ready):
            num_updates, results = call.num_updates, call.results
            self.updates += num_updates
            taken_in = sum(result.transitions for result in results)
            self._ledger.losses.env_steps_lost += call.transitions - taken_in
            self._replay_ready = min(result.replay_transitions for result in results) > 0
            self.metrics.aggregate([result.metrics for result in results], key=LEARNER_RESULTS)
            seconds = max(result.seconds for result in results)
            self.metrics.log_value("learner_seconds", seconds, reduce="lifetime_sum")
            if num_updates and self._sampling is None:
                with self.metrics.log_time((TIMERS, SYNCH_WORKER_WEIGHTS_TIMER)):
                    self.sync_weights()
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

    def forget_samples(self) -> None:
        """Gives up what env runners are collecting, so that what has arrived can be saved."""
        if self._sampling is not None:
            self._sampling.forget()
            self._ledger.drop_unfinished()

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

    @override(ResumableAlgorithm)
    def save_to_path(self, path: Any = None, **kwargs: Any) -> str:
        path = super().save_to_path(path, **kwargs)
        if self._sampling is None:
            self._ledger.drop_unfinished()  # as the env runner has
        return path

    @override(ResumableAlgorithm)
    def counters(self) -> dict[str, Any]:
        return {
            "env_steps": self.env_steps,
            "updates": self.updates,
            "next_learner": self._next_learner,
            "learning_since": self._learning_since,
            "losses": self._ledger.state(),
        }

    @override(ResumableAlgorithm)
    def set_counters(self, counters: Mapping[str, Any]) -> None:
        self.env_steps = counters["env_steps"]
        self.updates = counters["updates"]
        num_learners = max(1, self.config.num_learners)  # which may be fewer than there were
        self._next_learner = counters["next_learner"] % num_learners
        self._learning_since = counters["learning_since"]
        self._ledger.restore(counters.get("losses", {}))

    @override(ResumableAlgorithm)
    def forget_what_is_under_way(self) -> None:
        if self._sampling is not None:
            self._sampling.forget()
        self._learning.forget()
        self._shards, self._transitions = self._empty_shards(), 0

    @override(ResumableAlgorithm)
    def weights_were_restored(self) -> None:
        self._guidance = Guidance(updates=self.updates)

    @override(ResumableAlgorithm)
    def replay_was_restored(self, transitions: int | None) -> None:
        self._replay_ready = bool(transitions)
        if transitions is None:
            self._learning_since = (self.env_steps, self.updates)

    @override(ResumableAlgorithm)
    def sync_weights(self) -> None:
        self.env_runner_group.sync_weights(
            from_worker_or_learner_group=self.learner_group,
            policies=[DEFAULT_MODULE_ID],
            inference_only=True,
        )
