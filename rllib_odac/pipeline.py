"""What is under way between driver, env runners and learners: references and counts alone.

Env runners leave episodes in the object store of their own node; learners take them out, and leave
their weights there; a request for a sample brings along where the newest weights lie. With remote
learners the driver holds no transition, however many env runners there are.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import ray
from ray import cloudpickle
from ray.exceptions import RayError
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.env.env_runner_group import EnvRunnerGroup

from rllib_odac.env_runner import GoalEnvRunner
from rllib_odac.faults import EnvRunnersLostError, Ledger
from rllib_odac.learner import ODACTorchLearner

NUM_EXPLORATION_GOALS = 256  # achieved goals that each learner draws anew in every call
CALLS_AHEAD = 2  # calls of learners under way: one that is worked on and one that follows at once
STALLED = 5  # an env runner is restarted when a request has been overdue for so many times its time
SECONDS_TO_KNOW = 5  # of a learner's death, after what the others make of it has arrived

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
class Guidance:
    """What an env runner acts by.

    Attributes:
        updates: Updates made to the weights.
        weights: RLlib's state with a reference to the weights, which an env runner follows if they
            are new to it; None if there are none newer than those it began with.
        exploration_goals: Reference to goals (N, G), or None.
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


class Sampling:
    """Requests for samples to the remote env runners of a group.

    Args:
        group: The env runners.
        timeout_s: Seconds after which a request is overdue: nobody counts on it or waits for it any
            longer, but what it brings is taken if it comes.
        patience_s: Seconds without any sample, though some are wanted, after which to give up.
        ledger: Where losses are entered.
    """

    def __init__(
        self, group: EnvRunnerGroup, timeout_s: float, patience_s: float, ledger: Ledger
    ) -> None:
        self._group = group
        self._manager = group._worker_manager
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._ledger = ledger
        self._requests: dict[ray.ObjectRef, _Request] = {}
        self._pings: dict[int, ray.ObjectRef] = {}  # of env runners that have died
        self._overdue: set[int] = set()  # env runners that nobody waits for
        self._heard = time.monotonic()  # when a sample came last, or none was wanted
        self._all_are_dead = False

    @property
    def references(self) -> list[ray.ObjectRef]:
        """Of all requests."""
        return list(self._requests)

    @property
    def expected(self) -> list[ray.ObjectRef]:
        """Of the requests that are not overdue."""
        oldest = time.monotonic() - self._timeout_s
        return [key for key, request in self._requests.items() if request.time > oldest]

    @property
    def env_steps_expected(self) -> int:
        """Environment steps asked for that are on their way, at most."""
        return sum(self._requests[reference].env_steps for reference in self.expected)

    def look_after(self) -> None:
        """Notices who stalls, restarts who has stalled for long, and gives up where nobody samples.

        Raises:
            EnvRunnersLostError: If no env runner comes back, or none brings anything for too long.
        """
        now = time.monotonic()
        healthy = self._manager.healthy_actor_ids()
        if healthy and not self._requests:
            self._heard = now  # learners are to catch up first
        late = [key for key, each in self._requests.items() if now - each.time > self._timeout_s]
        # This process may have been away itself: some wait to be taken.
        if late and (answered := wait(late, timeout_s=0)):
            self._heard = now
            late = [reference for reference in late if reference not in answered]
        oldest: dict[int, float] = {}
        for request in [self._requests[reference] for reference in late]:
            oldest[request.runner] = min(request.time, oldest.get(request.runner, now))
        overdue = set(oldest)
        for runner in overdue - self._overdue:
            logger.warning(
                "Env runner %d has not answered for %g s; going on without it.",
                *(runner, self._timeout_s),
            )
        self._overdue = overdue
        for runner in overdue:
            if now - oldest[runner] > STALLED * self._timeout_s:
                logger.warning("Env runner %d has stalled; it is restarted.", runner)
                self._ledger.losses.env_runners_stalled += 1
                ray.kill(self._manager.actors()[runner], no_restart=False)
                self._give_up_on(runner)
        if not healthy and not self._all_are_dead:
            logger.warning(
                "All env runners are lost; waiting up to %g s for them to come back.",
                self._patience_s,
            )
        self._all_are_dead = not healthy
        if self._all_are_dead and all(map(_is_dead, self._manager.actors().values())):
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

    def revived(self) -> list[int]:
        """Env runners that are alive again: they await their state.

        RLlib would ask each of them at every step and wait half a minute for the answer, with all
        else at rest.
        """
        for runner, actor in self._manager.actors().items():
            if not self._manager.is_actor_healthy(runner) and runner not in self._pings:
                self._pings[runner] = actor.ping.remote()
        revived = []
        for reference in wait(list(self._pings.values()), timeout_s=0):
            runner = next(key for key, ping in self._pings.items() if ping == reference)
            del self._pings[runner]
            try:
                ray.get(reference)
            except RayError:
                continue
            self._manager.set_actor_state(runner, healthy=True)
            revived.append(runner)
        return revived

    def set_state(self, runner: int, state: ray.ObjectRef) -> None:
        """Gives an env runner its state, before anything that it is asked for later."""
        self._manager.actors()[runner].apply.remote(GoalEnvRunner.set_state, state)

    def _give_up_on(self, runner: int) -> None:
        """Enters the death of an env runner, once, with all that was asked of it."""
        asked = [key for key, request in self._requests.items() if request.runner == runner]
        steps = [self._requests.pop(reference).env_steps for reference in asked]
        self._ledger.losses.env_steps_missed += sum(steps)
        self._ledger.env_runner_died(runner)
        self._manager.set_actor_state(runner, healthy=False)

    def free_runners(self, requests_each: int) -> list[int]:
        """Healthy env runners, once for each further request they may get; the idlest first."""
        busy = dict.fromkeys(self._manager.healthy_actor_ids(), 0)
        for request in self._requests.values():
            if request.runner in busy:
                busy[request.runner] += 1
        free = [(n, runner) for runner, taken in busy.items() for n in range(taken, requests_each)]
        return [runner for _, runner in sorted(free)]

    def request(self, runner: int, env_steps: int, guidance: Guidance) -> None:
        """Asks an env runner for so many environment steps by the guidance given."""
        # Ray hands the goals themselves over; weights stay a reference, being part of a mapping.
        reference = self._manager.actors()[runner].apply.remote(
            _sample, env_steps, guidance.weights, guidance.exploration_goals
        )
        now = time.monotonic()
        self._requests[reference] = _Request(runner, env_steps, guidance.updates, now)

    def take(self, ready: Collection[ray.ObjectRef]) -> list[Sample]:
        """Samples that have arrived, by env runner. One that died is left to Ray to restart.

        Raises:
            Exception: Any that an environment raised.
        """
        samples = []
        for reference in [reference for reference in self._requests if reference in ready]:
            if reference not in self._requests:
                continue  # another request has shown that its env runner is dead
            request = self._requests[reference]
            try:
                result = ray.get(reference)
            except RayError as error:
                if not self._group._ignore_ray_errors_on_env_runners:
                    raise
                self._give_up_on(request.runner)
                logger.warning("Env runner %d is lost: %s.", request.runner, type(error).__name__)
                continue
            del self._requests[reference]
            if isinstance(result, RayError):
                continue  # its weights are gone with the learner, which has an error of its own
            if isinstance(result, Exception):
                raise result
            samples.append(replace(result, runner=request.runner, updates=request.updates))
        if samples:
            self._heard = time.monotonic()
        return sorted(samples, key=lambda sample: sample.runner)

    def forget(self) -> None:
        """Drops what is asked for; waits for it, since env runners are busy with it till then."""
        wait(self.references, self._timeout_s, len(self._requests))
        self._requests.clear()


@dataclass
class LearnerResult:
    """What one learner has to say after a call.

    Attributes:
        metrics: RLlib's.
        replay_transitions: Size of its replay.
        transitions: Transitions that it took in.
        exploration_goals: Achieved goals (N, G), or None where none are wanted.
        weights: RLlib's state with a reference to the weights of its inference-only module; from
            the first learner alone, after updates that remote env runners have to hear of.
        seconds: Time it took.
    """

    metrics: Any
    replay_transitions: int
    transitions: int
    exploration_goals: Any
    weights: dict[str, Any] | None
    seconds: float


@dataclass
class Call:
    """A call of all learners: updates asked for, transitions handed over, and who has answered."""

    num_updates: int
    transitions: int
    waiting: list[ray.ObjectRef] = field(default_factory=list)
    results: list[LearnerResult] = field(default_factory=list)


class Learning:
    """Calls of `ODACTorchLearner.update`, each to all learners, which answer them in turn.

    Args:
        group: One local learner, whose calls are made at once, or remote ones.
        publish: Whether the first learner puts new weights into the object store.
    """

    def __init__(self, group: LearnerGroup, publish: bool) -> None:
        self._group = group
        self._publish = publish
        self._calls: list[Call] = []
        self.has_failed = False

    @property
    def references(self) -> list[ray.ObjectRef]:
        """Of all calls, from the learners that have not answered.

        Raises:
            RuntimeError: If a learner has failed, for which the others may wait for ever.
        """
        if self.has_failed:
            raise RuntimeError("A learner has failed: build the algorithm anew.")
        return [reference for call in self._calls for reference in call.waiting]

    @property
    def has_room(self) -> bool:
        """Whether another call would find a learner without work when it is its turn."""
        return sum(bool(call.waiting) for call in self._calls) < CALLS_AHEAD

    @property
    def updates_in_flight(self) -> int:
        """Updates asked of each learner whose results have not been taken."""
        return sum(call.num_updates for call in self._calls)

    def call(
        self,
        shards: list[list[Any]],
        transitions: int,
        num_updates: int,
        timesteps: dict[str, int],
    ) -> None:
        """Hands learner i the episodes, or references to them, of shards[i], and has it update."""
        arguments = (shards, num_updates, timesteps, self._publish and num_updates > 0)
        call = Call(num_updates, transitions)
        if self._group.is_local:
            result = _update(self._group._learner, *arguments)
            if isinstance(result, Exception):
                self.has_failed = True
                raise result
            call.results.append(result)
        else:
            actors = self._group._worker_manager.actors().values()
            call.waiting = [actor.apply.remote(_update, *arguments) for actor in actors]
        self._calls.append(call)

    def take(self, ready: Collection[ray.ObjectRef]) -> list[Call]:
        """Calls that all learners have answered.

        Raises:
            Exception: The first that a learner met.
        """
        for call in self._calls:
            for reference in [reference for reference in call.waiting if reference in ready]:
                try:
                    result = ray.get(reference)
                except RayError:
                    self.has_failed = True
                    raise
                if isinstance(result, Exception):
                    self.has_failed = True
                    raise result
                call.waiting.remove(reference)
                call.results.append(result)
        done = [call for call in self._calls if not call.waiting]
        self._calls = [call for call in self._calls if call.waiting]
        return done

    def has_lost_one(self) -> bool:
        """Whether a learner's process is dead. After a failure it takes a while to be known."""
        if self._group.is_local:
            return False
        deadline = time.monotonic() + (SECONDS_TO_KNOW if self.has_failed else 0)
        while True:
            if any(map(_is_dead, self._group._worker_manager.actors().values())):
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)

    def forget(self) -> None:
        """Waits for all calls and drops what they bring."""
        wait(self.references, None, len(self.references))
        self._calls.clear()


def wait(
    references: Sequence[ray.ObjectRef], timeout_s: float | None, at_least: int = 1
) -> set[ray.ObjectRef]:
    """All that are ready, as soon as that is `at_least` so many or the time has passed."""
    if not references:
        return set()
    ready, rest = ray.wait(
        list(references), num_returns=max(1, at_least), timeout=timeout_s, fetch_local=False
    )
    more = ray.wait(rest, num_returns=len(rest), timeout=0, fetch_local=False)[0] if rest else []
    return {*ready, *more}


def _is_dead(actor: Any) -> bool:
    """Whether an actor is gone and will not be restarted."""
    told = ray._private.state.actors(actor_id=actor._actor_id.hex())
    return bool(told) and told["State"] == "DEAD"


def sample_of(
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
    exploration_goals: np.ndarray | None,
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
        return sample_of(runner, env_steps, to_store=True)
    except Exception as error:
        return portable(error)


def portable(error: Exception) -> Exception:
    """The error with its traceback as a note; one that cannot travel is told in words."""
    # RLlib raises an empty error from the true one, a link that does not survive the journey.
    if not str(error) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    note = "".join(traceback.format_exception(error))
    try:
        cloudpickle.loads(cloudpickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(note)
    return error


def _update(
    learner: ODACTorchLearner,
    shards: list[list[Any]],
    num_updates: int,
    timesteps: dict[str, int],
    publish: bool,
) -> LearnerResult | Exception:
    """Runs on a learner. Its error is returned: raised, it would end as a silent restart."""
    start = time.perf_counter()
    mine = shards[learner._learner_index]
    before = learner.num_transitions
    try:
        metrics = learner.update(
            episodes=[episode for batch in mine if isinstance(batch, list) for episode in batch],
            episodes_refs=[batch for batch in mine if isinstance(batch, ray.ObjectRef)],
            num_updates=num_updates,
            timesteps=timesteps,
        )
        goals = learner.draw_exploration_goals(NUM_EXPLORATION_GOALS)
        weights = None
        if publish and learner._learner_index == 0:
            module = f"{COMPONENT_RL_MODULE}/{DEFAULT_MODULE_ID}"
            weights = learner.get_state(components=[module], inference_only=True)
            weights[COMPONENT_RL_MODULE] = ray.put(weights[COMPONENT_RL_MODULE])
    except Exception as error:
        return portable(error)
    return LearnerResult(
        metrics=metrics,
        replay_transitions=len(learner.replay),
        transitions=learner.num_transitions - before,
        exploration_goals=goals,
        weights=weights,
        seconds=time.perf_counter() - start,
    )
