"""Requests to remote env runners: who is asked, who answers, who stalls, dies and comes back.

A driver of a thousand env runners has no time to look at all of them for each sample: a request, an
answer and the question who is to be asked next cost the same however many there are, and all of
them are looked at `CHECK_EVERY_S`.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError
from ray.rllib.env.env_runner_group import EnvRunnerGroup

from rllib_odac.env_runner import GoalEnvRunner
from rllib_odac.ray_compat import env_runner_manager, ignores_env_runner_errors, is_dead
from rllib_odac.runtime.arrivals import Arrivals
from rllib_odac.runtime.faults import EnvRunnersLostError, StepAccounting
from rllib_odac.runtime.idle import Idle
from rllib_odac.runtime.learner_calls import picklable, wait
from rllib_odac.runtime.revivals import Revivals

CHECK_EVERY_S = 0.2
STALLED = 5  # an env runner is restarted when a request has been overdue for so many times its time
SECONDS_TO_STOP = 10

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """What an env runner did at one request.

    Attributes:
        episodes: Those that ended meanwhile, or a reference to them; None if there are none.
        transitions: How many these hold.
        env_steps: Steps that it made.
        unfinished_steps: Steps of the episodes that are going on there now.
        metrics: RLlib's.
        runner: Its number; 0 in the driver.
        updates: Updates that had been made to the weights it acted with.
    """

    episodes: Any
    transitions: int
    env_steps: int
    unfinished_steps: int
    metrics: Any
    runner: int = 0
    updates: int = 0


@dataclass(frozen=True)
class PolicySnapshot:
    """What an env runner acts by.

    Attributes:
        updates: Updates made to the weights.
        weights: RLlib's state with a reference to the weights, which an env runner follows if they
            are new to it; None if there are none newer than those it began with.
        exploration_goals: Reference to goals (N, G) of each source, or None.
    """

    updates: int = 0
    weights: dict[str, Any] | None = None
    exploration_goals: ray.ObjectRef | None = None


@dataclass(frozen=True)
class _Request:
    runner: int
    env_steps: int
    updates: int
    time: float


class EnvRunnerRequests:
    """Requests for samples to the remote env runners of a group.

    Args:
        group: The env runners.
        timeout_s: Seconds after which a request is overdue: it is no longer counted on
            or waited for, but its sample is taken if it comes.
        patience_s: Seconds without any sample, though some are wanted, after which to give up.
        accounting: Where losses are entered.
        arrivals: Is told what to expect.

    Attributes:
        env_steps_expected: Environment steps asked for that are on their way, at most.
    """

    def __init__(
        self,
        group: EnvRunnerGroup,
        timeout_s: float,
        patience_s: float,
        accounting: StepAccounting,
        arrivals: Arrivals,
    ) -> None:
        self._group = group
        self._manager = env_runner_manager(group)
        self._arrivals = arrivals
        self._timeout_s = timeout_s
        # Whoever stalls gets a second chance.
        self._patience_s = max(patience_s, 2 * STALLED * timeout_s)
        self._accounting = accounting
        self._requests: dict[ray.ObjectRef, _Request] = {}  # the oldest first
        self._pending: dict[ray.ObjectRef, _Request] = {}  # those that are not overdue
        self.env_steps_expected = 0  # of these
        self._idle = Idle()
        self._checked = self._revived = -math.inf  # when all env runners were looked at last
        self._revivals = Revivals(self._manager)
        self._overdue: set[int] = set()  # env runners that are not waited for
        self._heard = time.monotonic()  # when a sample came last, or none was wanted
        self._all_are_dead = False

    @property
    def references(self) -> list[ray.ObjectRef]:
        """Of all requests."""
        return list(self._requests)

    @property
    def pending(self) -> list[ray.ObjectRef]:
        """Of the requests that are not overdue."""
        return list(self._pending) if self.has_pending else []

    @property
    def has_pending(self) -> bool:
        """Whether there are requests that are not overdue."""
        self._expire()
        return bool(self._pending)

    def _expire(self) -> None:
        """Counts no longer on what is overdue."""
        oldest = time.monotonic() - self._timeout_s
        while self._pending:
            reference, request = next(iter(self._pending.items()))
            if request.time > oldest:
                return
            self._no_longer_expected(reference)

    def _no_longer_expected(self, reference: ray.ObjectRef) -> None:
        if (request := self._pending.pop(reference, None)) is not None:
            self.env_steps_expected -= request.env_steps

    def _remove(self, reference: ray.ObjectRef) -> _Request:
        self._no_longer_expected(reference)
        self._arrivals.forget(reference)
        request = self._requests.pop(reference)
        self._idle.answered(request.runner)
        return request

    def check_env_runners(self) -> None:
        """Warns of env runners that stall, restarts those that stall for long, or gives up.

        Raises:
            EnvRunnersLostError: If no env runner comes back, or none brings anything for too long.
        """
        self._expire()
        now = time.monotonic()
        if now - self._checked < CHECK_EVERY_S:
            return
        self._checked = now
        healthy = self._manager.healthy_actor_ids()
        self._idle.are_alive(healthy)
        if healthy and not self._requests:
            self._heard = now  # learners are to catch up first
        late = [key for key in self._requests if key not in self._pending]
        # This process may have been away itself: some wait to be taken.
        if late and (answered := wait(late, timeout_s=0)):
            self._heard = now
            late = [reference for reference in late if reference not in answered]
            for reference in answered:
                self._arrivals.again(reference)
        oldest: dict[int, float] = {}
        for request in [self._requests[reference] for reference in late]:
            oldest[request.runner] = min(request.time, oldest.get(request.runner, now))
        overdue = set(oldest)
        for runner in overdue - self._overdue:
            logger.warning(
                "Env runner %d has not answered for %g s (sample_timeout_s); going on without it.",
                runner,
                self._timeout_s,
            )
        self._overdue = overdue
        for runner in overdue:
            if now - oldest[runner] > STALLED * self._timeout_s:
                logger.warning(
                    "Env runner %d has not answered for %g s; it is restarted.",
                    runner,
                    STALLED * self._timeout_s,
                )
                self._accounting.counters.env_runners_stalled += 1
                ray.kill(self._manager.actors()[runner], no_restart=False)
                self._handle_death(runner)
        if not healthy and not self._all_are_dead:
            logger.warning(
                "All env runners are lost; waiting up to %g s for them to come back.",
                self._patience_s,
            )
        self._all_are_dead = not healthy
        if self._all_are_dead and all(map(is_dead, self._manager.actors().values())):
            raise EnvRunnersLostError(
                "All env runners are lost for good: Ray may not restart them any more "
                "(restart_failed_env_runners, max_num_env_runner_restarts)."
            )
        if now - self._heard > self._patience_s:
            raise EnvRunnersLostError(
                f"No env runner has brought a sample for {self._patience_s:g} s "
                f"(env_runner_restore_timeout_s): {len(healthy)} of "
                f"{len(self._manager.actors())} are alive."
            )

    def restarted(self) -> list[int]:
        """Env runners that are alive again: they await their state."""
        if self._checked == self._revived:
            return []
        self._revived = self._checked
        actors = self._manager.actors()
        dead = [runner for runner in actors if not self._manager.is_actor_healthy(runner)]
        restarted = self._revivals.of(dead)
        for runner in restarted:
            self._manager.set_actor_state(runner, healthy=True)
        return restarted

    def set_state(self, runner: int, state: ray.ObjectRef) -> None:
        """Gives an env runner its state, before anything that it is asked for later."""
        self._manager.actors()[runner].apply.remote(GoalEnvRunner.set_state, state)

    def _handle_death(self, runner: int) -> None:
        """Enters the death of an env runner, once, with all that was asked of it."""
        asked = [key for key, request in self._requests.items() if request.runner == runner]
        steps = [self._remove(reference).env_steps for reference in asked]
        self._accounting.counters.env_steps_missed += sum(steps)
        self._accounting.env_runner_died(runner)
        self._manager.set_actor_state(runner, healthy=False)
        self._idle.died(runner)

    def idlest(self, requests_each: int) -> int | None:
        """A healthy env runner with the fewest requests, if fewer than so many."""
        while (runner := self._idle.first(requests_each)) is not None:
            if self._manager.is_actor_healthy(runner):
                return runner
            self._idle.died(runner)
        return None

    def request(self, runner: int, env_steps: int, snapshot: PolicySnapshot) -> None:
        """Asks an env runner for so many environment steps by the snapshot given."""
        # Ray hands the goals themselves over; weights stay a reference, being part of a mapping.
        reference = self._manager.actors()[runner].apply.remote(
            _sample, env_steps, snapshot.weights, snapshot.exploration_goals
        )
        request = _Request(runner, env_steps, snapshot.updates, time.monotonic())
        self._requests[reference] = self._pending[reference] = request
        self.env_steps_expected += env_steps
        self._idle.asked(runner)
        self._arrivals.expect(reference)

    def collect(self, ready: Collection[ray.ObjectRef]) -> list[Sample]:
        """Samples that have arrived, by env runner. One that died is left to Ray to restart.

        Raises:
            Exception: Any that an environment raised.
        """
        samples: list[tuple[float, Sample]] = []
        for reference in ready:
            if (request := self._requests.get(reference)) is None:
                continue  # a learner's, or another request has shown that its env runner is dead
            try:
                result = self._arrivals.result(reference)
            except RayError as error:
                if not ignores_env_runner_errors(self._group):
                    self._remove(reference)
                    raise
                self._handle_death(request.runner)
                logger.warning("Env runner %d is lost: %s.", request.runner, type(error).__name__)
                continue
            self._remove(reference)
            if isinstance(result, RayError):
                continue  # its weights are gone with the learner, which has an error of its own
            if isinstance(result, Exception):
                raise result
            sample = replace(result, runner=request.runner, updates=request.updates)
            samples.append((request.time, sample))
        if samples:
            self._heard = time.monotonic()
        samples.sort(key=lambda each: (each[1].runner, each[0]))
        return [sample for _, sample in samples]

    def cancel(self) -> None:
        """Drops what is asked for; waits for it, since env runners are busy with it till then."""
        wait(self.references, self._timeout_s, len(self._requests))
        for reference in self.references:
            self._remove(reference)


def stop_env_runners(group: EnvRunnerGroup) -> None:
    """Ends the remote env runners of a group: those that do not end soon are killed."""
    manager = env_runner_manager(group)
    stopping = [actor.apply.remote(GoalEnvRunner.stop) for actor in manager.actors().values()]
    wait(stopping, SECONDS_TO_STOP, len(stopping))
    manager.clear()


def collect_sample(
    runner: GoalEnvRunner, num_timesteps: int | None = None, to_store: bool = False
) -> Sample:
    """What an env runner collects, its episodes left in the object store if asked for."""
    before = runner.env_steps
    episodes = runner.sample(num_timesteps=num_timesteps)
    return Sample(
        episodes=ray.put(episodes) if to_store and episodes else episodes or None,
        transitions=sum(map(len, episodes)),
        env_steps=runner.env_steps - before,
        unfinished_steps=runner.unfinished_steps,
        metrics=runner.get_metrics(),
    )


def _sample(
    runner: GoalEnvRunner,
    env_steps: int,
    weights: dict[str, Any] | None,
    exploration_goals: dict[str, np.ndarray] | None,
) -> Sample | Exception:
    """Runs on an env runner: episodes stay in its object store, only a reference travels.

    An environment's error is returned, for the driver to raise. RLlib would take a raised one for
    the death of the runner, and restart it for ever.
    """
    try:
        if weights is not None:
            runner.set_state(weights)
        if exploration_goals is not None:
            runner.set_exploration_goals(exploration_goals)
        return collect_sample(runner, env_steps, to_store=True)
    except Exception as error:
        return picklable(error)
