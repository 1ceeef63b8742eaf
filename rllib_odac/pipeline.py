"""What is under way between driver, env runners and learners: references and counts alone.

Env runners leave episodes in the object store of their own node; learners take them out, and leave
their weights there; a request for a sample brings along where the newest weights lie. With remote
learners the driver holds no transition, however many env runners there are.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray
from ray import cloudpickle
from ray.exceptions import RayError
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.core.learner.learner_group import LearnerGroup
from ray.rllib.env.env_runner_group import EnvRunnerGroup

from rllib_odac.env_runner import GoalEnvRunner
from rllib_odac.learner import ODACTorchLearner

NUM_EXPLORATION_GOALS = 256  # achieved goals that each learner draws anew in every call
CALLS_AHEAD = 2  # calls of learners under way: one that is worked on and one that follows at once


@dataclass(frozen=True)
class Sample:
    """What an env runner did at one request.

    Attributes:
        episodes: Those that ended meanwhile, or a reference to them; None if there are none.
        env_steps: Steps that it made.
        metrics: RLlib's.
        updates: Updates that had been made to the weights it acted with.
    """

    episodes: Any
    env_steps: int
    metrics: Any
    updates: int


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
    """

    def __init__(self, group: EnvRunnerGroup, timeout_s: float) -> None:
        self._manager = group._worker_manager
        self._timeout_s = timeout_s
        self._requests: dict[ray.ObjectRef, _Request] = {}

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
        """Samples that have arrived, by env runner. One that died is left to RLlib to restart.

        Raises:
            Exception: Any that an environment raised.
        """
        samples = []
        for reference in [reference for reference in self._requests if reference in ready]:
            request = self._requests.pop(reference)
            try:
                result = ray.get(reference)
            except RayError:
                self._manager.set_actor_state(request.runner, healthy=False)
                continue
            if isinstance(result, RayError):
                continue  # its weights are gone with the learner, which has an error of its own
            if isinstance(result, Exception):
                raise result
            episodes, env_steps, metrics = result
            sample = Sample(episodes, env_steps, metrics, request.updates)
            samples.append((request.runner, sample))
        return [sample for _, sample in sorted(samples, key=lambda each: each[0])]

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
        exploration_goals: Achieved goals (N, G), or None where none are wanted.
        weights: RLlib's state with a reference to the weights of its inference-only module; from
            the first learner alone, after updates that remote env runners have to hear of.
        seconds: Time it took.
    """

    metrics: Any
    replay_transitions: int
    exploration_goals: Any
    weights: dict[str, Any] | None
    seconds: float


@dataclass
class _Call:
    num_updates: int
    waiting: list[ray.ObjectRef]
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
        self._calls: list[_Call] = []
        self._has_failed = False

    @property
    def references(self) -> list[ray.ObjectRef]:
        """Of all calls, from the learners that have not answered.

        Raises:
            RuntimeError: If a learner has failed, for which the others may wait for ever.
        """
        if self._has_failed:
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

    def call(self, shards: list[list[Any]], num_updates: int, timesteps: dict[str, int]) -> None:
        """Hands learner i the episodes, or references to them, of shards[i], and has it update."""
        arguments = (shards, num_updates, timesteps, self._publish and num_updates > 0)
        call = _Call(num_updates, [])
        if self._group.is_local:
            result = _update(self._group._learner, *arguments)
            if isinstance(result, Exception):
                raise result
            call.results.append(result)
        else:
            actors = self._group._worker_manager.actors().values()
            call.waiting = [actor.apply.remote(_update, *arguments) for actor in actors]
        self._calls.append(call)

    def take(self, ready: Collection[ray.ObjectRef]) -> list[tuple[int, list[LearnerResult]]]:
        """Calls that all learners have answered: number of updates and results.

        Raises:
            Exception: The first that a learner met.
        """
        for call in self._calls:
            for reference in [reference for reference in call.waiting if reference in ready]:
                result = ray.get(reference)
                if isinstance(result, Exception):
                    self._has_failed = True
                    raise result
                call.waiting.remove(reference)
                call.results.append(result)
        done = [call for call in self._calls if not call.waiting]
        self._calls = [call for call in self._calls if call.waiting]
        return [(call.num_updates, call.results) for call in done]

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


def _sample(
    runner: GoalEnvRunner,
    env_steps: int,
    weights: dict[str, Any] | None,
    exploration_goals: np.ndarray | None,
) -> tuple[ray.ObjectRef | None, int, Any] | Exception:
    """Runs on an env runner: episodes stay in its object store, only a reference travels.

    An environment's error is returned, for the driver to raise. RLlib would take a raised one for
    the death of the runner, and restart it for ever.
    """
    before = runner.env_steps
    try:
        if weights is not None:
            runner.set_state(weights)
        if exploration_goals is not None:
            runner.set_exploration_goals(exploration_goals)
        episodes = runner.sample(num_timesteps=env_steps)
    except Exception as error:
        return _portable(error)
    reference = ray.put(episodes) if episodes else None
    return reference, runner.env_steps - before, runner.get_metrics()


def _portable(error: Exception) -> Exception:
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
        return _portable(error)
    seconds = time.perf_counter() - start
    return LearnerResult(metrics, len(learner.replay), goals, weights, seconds)
