"""`Training`: passes episodes from env runners to learners, and counts what each side owes."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import ray
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    SYNCH_WORKER_WEIGHTS_TIMER,
    TIMERS,
)
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

from rllib_odac.data.load import load_log
from rllib_odac.data.window import Log
from rllib_odac.env_runner import GoalEnvRunner
from rllib_odac.learner import UPDATES_PER_DRAW
from rllib_odac.runtime.arrivals import Arrivals
from rllib_odac.runtime.env_runner_requests import (
    CHECK_EVERY_S,
    EnvRunnerRequests,
    PolicySnapshot,
    Sample,
    collect_sample,
)
from rllib_odac.runtime.faults import StepAccounting
from rllib_odac.runtime.learner_calls import LearnerCalls, LearnerResult, wait
from rllib_odac.runtime.pace import Pace

if TYPE_CHECKING:
    from rllib_odac.config import ODACConfig

UPDATES_PER_LOG_CALL = 8 * UPDATES_PER_DRAW  # where there are no samples to look after
# Transitions that may wait for learners to take them in, beyond what each env runner is asked for.
MOST_WAITING = 50_000
EPISODES_DROPPED = "episodes_dropped"  # unfinished ones, which no checkpoint holds


class Training:
    """The driver's side of training: references and counts, no transition.

    Args:
        config: The algorithm's.
        env_runners: In this process, or remote.
        learners: In this process, or remote.
        metrics: The algorithm's.

    Attributes:
        env_steps: Environment steps collected since the beginning of the run.
        updates: Updates made by each learner.
        requests: To remote env runners; None if they are in this process.
        calls: Of learners.
        accounting: What became of every environment step.
    """

    def __init__(
        self,
        config: ODACConfig,
        env_runners: EnvRunnerGroup,
        learners: LearnerGroup,
        metrics: MetricsLogger,
    ) -> None:
        self.env_steps = 0
        self.updates = 0
        self.accounting = StepAccounting()
        self.requests: EnvRunnerRequests | None = None
        self._arrivals = Arrivals()  # of samples and of learners' answers
        if env_runners.num_remote_env_runners() > 0:
            self.requests = EnvRunnerRequests(
                env_runners,
                config.sample_timeout_s,
                config.env_runner_restore_timeout_s,
                self.accounting,
                self._arrivals,
            )
        self.calls = LearnerCalls(
            learners, self.requests is not None, config.learner_timeout_s, self._arrivals
        )
        self._pace = Pace(config.max_weight_lag)
        self._config = config
        self._env_runners = env_runners
        self._learners = learners
        self._metrics = metrics
        self._snapshot = PolicySnapshot()  # what env runners act by from the next request on
        self._next_learner = 0  # which one gets the next episodes
        self._replay_ready = False  # whether every learner has episodes to learn from
        # Environment steps and updates when the replay was empty last, from where both are counted.
        self._learning_since = (0, 0)
        self._awaits_log = config.data is not None  # unless a restore brings the replay
        self._log_is_known = False  # whether input statistics have it already
        self._seed = int(np.random.SeedSequence(config.seed).generate_state(1)[0])
        self._last_step: float = math.inf  # environment steps after which no more are asked for
        self._shards: list[list[Any]] = []  # episodes for each learner's replay
        self._transitions = 0  # in them
        self._empty_shards()

    def step(self) -> None:
        """Collects and updates.

        With env runners in its own process, and in synchronous mode, it is a round: a fragment
        from every env runner, all updates owed for it, the new weights to the env runners. In
        asynchronous mode it passes on whatever has come about since the last time.

        Raises:
            EnvRunnersLostError: If no env runner comes back, or none brings anything for too long.
        """
        if self._awaits_log:
            self._load_log()
        if self.requests is not None:
            self.requests.check_env_runners()
        with self._metrics.log_time((TIMERS, ENV_RUNNER_SAMPLING_TIMER)):
            if self.requests is None:
                runner = self._env_runners.local_env_runner
                samples = [replace(collect_sample(runner), updates=self.updates)]
            elif self._config.is_asynchronous:
                samples = self._sample_asynchronously(self.requests)
            else:
                samples = self._sample_synchronously(self.requests)
        self._add(samples)
        with self._metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            if self._config.is_asynchronous:
                if self._can_call_learners:
                    self._call_learners(self._pace.updates_per_call)
            elif samples:
                self._call_learners()
                self._await_learners()

    def learn_from_log(self, last_update: int) -> None:
        """Makes updates from the log alone, at most as many as learners are to hear of at once."""
        if self._awaits_log:
            self._load_log()
        num_updates = min(UPDATES_PER_LOG_CALL, last_update - self.updates)
        with self._metrics.log_time((TIMERS, LEARNER_UPDATE_TIMER)):
            # Schedules of the learning rate are by updates where there are no environment steps.
            steps = {NUM_ENV_STEPS_SAMPLED_LIFETIME: self.updates}
            self.calls.call(self._shards, 0, num_updates=num_updates, timesteps=steps)
            self._empty_shards()
            self._take_results(())
            self._await_learners()

    # Samples --------------------------------------------------------------------------------------

    def _sample_synchronously(self, requests: EnvRunnerRequests) -> list[Sample]:
        """Asks every env runner for a fragment, and waits for it."""
        while (runner := requests.idlest(requests_each=1)) is not None:
            if not self._request(requests, runner):
                break
        if not requests.has_pending:
            time.sleep(0.1)  # no env runner is alive
        samples: list[Sample] = []
        deadline = time.monotonic() + self._config.sample_timeout_s
        while requests.has_pending and (left := deadline - time.monotonic()) > 0:
            samples += requests.collect(self._arrivals.take(left))
        return sorted(samples, key=lambda sample: sample.runner)

    def _sample_asynchronously(self, requests: EnvRunnerRequests) -> list[Sample]:
        """Keeps env runners busy as far as learners keep up, and collects what has arrived."""
        most = self._config.max_requests_in_flight_per_env_runner
        while (runner := requests.idlest(most)) is not None and self._may_request(requests):
            if not self._request(requests, runner):
                break
        # A dead env runner that is alive again brings nothing by itself: it is to be looked for.
        ready = self._arrivals.take(0 if self._can_call_learners else CHECK_EVERY_S)
        self._take_results(ready)
        self.calls.check()
        return requests.collect(ready)

    def _may_request(self, requests: EnvRunnerRequests) -> bool:
        """Whether another fragment leaves learners as little behind as `max_weight_lag` asks for.

        A fragment that asks for more than that by itself is collected when all else is done. And
        before there is anything to learn from, nobody is behind. Where updates are few, learners
        may be slow to take episodes in, which must not fill the object store meanwhile.
        """
        if self._transitions + self.calls.transitions_in_flight > MOST_WAITING:
            return False
        expected = requests.env_steps_expected
        behind = self._updates_due(self.env_steps + expected + self._fragment) - self.updates
        if behind <= self._pace.max_lag or not self._replay_ready:
            return True
        return expected == 0 and self.updates >= self._updates_due(self.env_steps)

    def _request(self, requests: EnvRunnerRequests, runner: int) -> bool:
        """Asks an env runner for a fragment, unless all steps are asked for."""
        left = self._last_step - self.env_steps - requests.env_steps_expected
        if left <= 0:
            return False
        # All environments of a runner make their steps together.
        env_steps = max(min(self._fragment, left), self._config.num_envs_per_env_runner)
        requests.request(runner, int(env_steps), self._snapshot)
        return True

    @property
    def _fragment(self) -> int:
        """Environment steps of one request."""
        config = self._config
        return int(config.get_rollout_fragment_length() * config.num_envs_per_env_runner)

    def _add(self, samples: list[Sample]) -> None:
        for sample in samples:
            self.env_steps += sample.env_steps
            self._transitions += sample.transitions
            self.accounting.add(sample)
            if sample.episodes is not None:
                self._shards[self._next_learner].append(sample.episodes)
                self._next_learner = (self._next_learner + 1) % len(self._shards)
            self._metrics.log_value("weight_lag", self.updates - sample.updates, reduce="max")
        if samples:
            self._metrics.aggregate([sample.metrics for sample in samples], key=ENV_RUNNER_RESULTS)

    def _empty_shards(self) -> None:
        self._shards = [[] for _ in range(max(1, self._config.num_learners))]
        self._transitions = 0

    # Updates --------------------------------------------------------------------------------------

    def _updates_due(self, env_steps: int) -> int:
        """Updates that so many environment steps ask for."""
        since, updates = self._learning_since
        steps = env_steps - since - self._config.num_steps_before_learning
        return updates + max(0, int(steps * self._config.updates_per_env_step))

    def _updates_owed(self) -> int:
        """Updates due that no learner has been asked for."""
        if not self._replay_ready:
            return 0
        made = self.updates + self.calls.updates_in_flight
        return max(0, self._updates_due(self.env_steps) - made)

    @property
    def _can_call_learners(self) -> bool:
        """Whether there is something for learners to do that they have not been asked for."""
        return self.calls.has_room and (any(self._shards) or self._updates_owed() > 0)

    def _call_learners(self, max_updates: int | None = None) -> None:
        """Hands learners the new episodes and has them make updates that are owed, all or some."""
        owed = self._updates_owed()
        num_updates = owed if max_updates is None else min(owed, max_updates)
        timesteps = {NUM_ENV_STEPS_SAMPLED_LIFETIME: self.env_steps}
        more_owed = owed > num_updates
        self.calls.call(self._shards, self._transitions, num_updates, timesteps, more_owed)
        self._empty_shards()
        self._take_results(())  # a local learner has answered already

    def _await_learners(self) -> None:
        while references := self.calls.references:
            self._take_results(wait(references, timeout_s=1))
            self.calls.check()

    def _take_results(self, ready: Collection[Any]) -> None:
        """Takes in what learners have answered."""
        for call in self.calls.collect(ready):
            results = call.results
            self.updates += call.num_updates
            taken_in = sum(result.transitions for result in results)
            self.accounting.counters.env_steps_lost += call.transitions - taken_in
            self._replay_ready = min(result.replay_transitions for result in results) > 0
            self._metrics.aggregate([result.metrics for result in results], key=LEARNER_RESULTS)
            seconds = max(result.seconds for result in results)
            self._pace.note(call.num_updates, seconds)
            self._metrics.log_value("learner_seconds", seconds, reduce="lifetime_sum")
            if call.num_updates and self.requests is None:
                with self._metrics.log_time((TIMERS, SYNCH_WORKER_WEIGHTS_TIMER)):
                    self.sync_weights()
            self._take_snapshot(results)

    def _take_snapshot(self, results: list[LearnerResult]) -> None:
        """Notes the newest weights, and goals that learners drew from what was achieved."""
        snapshot = self._snapshot
        for weights in [result.weights for result in results if result.weights is not None]:
            snapshot = replace(snapshot, weights=weights, updates=self.updates)
        of_each = [result.exploration_goals for result in results]
        drawn = {
            source: np.concatenate([goals[source] for goals in of_each if source in goals])
            for source in dict.fromkeys(source for goals in of_each for source in goals)
        }
        if drawn:
            # A checkpoint holds the state of the env runner in this process.
            self._env_runners.local_env_runner.set_exploration_goals(drawn)
            if self.requests is not None:
                snapshot = replace(snapshot, exploration_goals=ray.put(drawn))
        self._snapshot = snapshot

    def sync_weights(self) -> None:
        """Gives env runners the learners' weights now, and waits for them."""
        with self.calls.supervision.waiting("hand over their weights"):
            self._env_runners.sync_weights(
                from_worker_or_learner_group=self._learners,
                policies=[DEFAULT_MODULE_ID],
                inference_only=True,
            )

    # Ending and restoring -------------------------------------------------------------------------

    def drain(self) -> None:
        """Waits for all that is under way and not overdue, and makes every update owed."""
        if self.requests is not None:
            while references := self.requests.pending:
                self._add(self.requests.collect(wait(references, timeout_s=1)))
        self._await_learners()
        while any(self._shards) or self._updates_owed() > 0:
            self._call_learners()
            self._await_learners()

    def rest_env_runners(self) -> tuple[int, int]:
        """Gets env runners ready for a checkpoint, which holds no episode that is going on.

        One in this process drops those, so that a run that continues and one that is restored do
        the same from here on. Remote ones go on with theirs.

        Returns:
            How many episodes were going on, and how many of them still are.
        """
        if self.requests is not None:
            counts = self._env_runners.foreach_env_runner(
                GoalEnvRunner.num_unfinished, local_env_runner=False, timeout_seconds=10
            )
            return sum(counts), sum(counts)
        dropped = self._env_runners.local_env_runner.drop_open_episodes()
        # Before the first update it does not know the learners' statistics of observations.
        self.sync_weights()
        self.count_dropped(dropped)
        return dropped, 0

    def count_dropped(self, episodes: int) -> None:
        """Counts episodes that were lost with a checkpoint, as a metric."""
        self._metrics.log_value(EPISODES_DROPPED, episodes, reduce="lifetime_sum")

    def cancel_samples(self) -> None:
        """Gives up what env runners are collecting, so that what has arrived can be saved."""
        if self.requests is not None:
            self.requests.cancel()
            self.accounting.drop_unfinished()

    def cancel(self) -> None:
        """Gives up everything that is under way."""
        if self.requests is not None:
            self.requests.cancel()
        self.calls.cancel()
        self._empty_shards()

    def end_at(self, env_steps: int) -> None:
        """Asks remote env runners for no more than so many environment steps in all."""
        self._last_step = env_steps

    def state(self) -> dict[str, Any]:
        """Counters for `set_state`."""
        return {
            "env_steps": self.env_steps,
            "updates": self.updates,
            "next_learner": self._next_learner,
            "learning_since": self._learning_since,
            "losses": self.accounting.state(),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state` gave."""
        self.env_steps, self.updates = state["env_steps"], state["updates"]
        # There may be fewer learners than when it was saved.
        self._next_learner = state["next_learner"] % len(self._shards)
        self._learning_since = state["learning_since"]
        self.accounting.restore(state["losses"])

    def weights_restored(self) -> None:
        """Forgets weights that were published before a restore."""
        self._snapshot = PolicySnapshot(updates=self.updates)

    def replay_restored(self, transitions: int | None) -> None:
        """Goes on with a replay of so many transitions, or waits for new ones if it is None."""
        self._replay_ready = bool(transitions)
        if transitions is None:
            self._learning_since = (self.env_steps, self.updates)
        self._awaits_log = self._config.data is not None and transitions is None
        self._log_is_known = self._awaits_log

    def _load_log(self) -> None:
        """Fills the replays from the log, so that learning begins with the next step."""
        config = self._config
        assert config.data is not None
        capacity, num_learners = config.replay_capacity, len(self._shards)
        log = Log(config.data, config.data_goal, config.actions, capacity, num_learners)
        seed = (self._seed, self.updates) if config.offline else None
        with self.calls.supervision.waiting("load data"):
            loaded = load_log(self._learners, log, seed, self._log_is_known)
        self._replay_ready = loaded > 0
        self._learning_since = (self.env_steps - config.num_steps_before_learning, self.updates)
        self._awaits_log = False
