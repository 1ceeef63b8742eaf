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

from rllib_odac.learner import ODACTorchLearner
from rllib_odac.ray_compat import all_in_service, is_dead, learner_actors, local_learner
from rllib_odac.runtime.arrivals import Arrivals
from rllib_odac.runtime.pace import Publications
from rllib_odac.runtime.supervision import Supervision

NUM_EXPLORATION_GOALS = 256  # achieved goals that each learner draws of each source in every call
CALLS_AHEAD = 2  # calls of learners under way: one that is worked on and one that follows at once
SECONDS_TO_KNOW = 5  # of a learner's death, after what the others make of it has arrived
SECONDS_TO_KNOW_OF_A_NODE = 30  # by which Ray counts one that it cannot reach as dead


@dataclass
class LearnerResult:
    """What one learner has to say after a call.

    Attributes:
        metrics: RLlib's.
        replay_transitions: Size of its replay.
        transitions: Transitions that it took in.
        exploration_goals: Goals (N, G) of each source that is wanted.
        weights: RLlib's state with a reference to the weights of its inference-only module; from
            the first learner alone, after updates that remote env runners have to hear of.
        seconds: Time it took.
    """

    metrics: Any
    replay_transitions: int
    transitions: int
    exploration_goals: dict[str, np.ndarray]
    weights: dict[str, Any] | None
    seconds: float


@dataclass
class Call:
    """A call of all learners: updates asked for, transitions handed over, and who has answered."""

    num_updates: int
    transitions: int
    waiting: list[ray.ObjectRef] = field(default_factory=list)
    results: list[LearnerResult] = field(default_factory=list)


class LearnerCalls:
    """Calls of `ODACTorchLearner.update`, each to all learners, which answer them in turn.

    Args:
        group: One local learner, whose calls are made at once, or remote ones.
        publish: Whether the first learner puts new weights into the object store.
        timeout_s: Time after which remote learners that do not answer count as dead.
        arrivals: Is told what to expect.

    Attributes:
        has_failed: Whether a learner has failed, for which the others may wait for ever.
        supervision: Of every wait on remote learners.
    """

    def __init__(
        self, group: LearnerGroup, publish: bool, timeout_s: float, arrivals: Arrivals
    ) -> None:
        self._group = group
        self._arrivals = arrivals
        self._publish = publish
        self._publications = Publications()
        self._calls: list[Call] = []
        self.has_failed = False
        self.supervision = Supervision(
            "Learners", self._actors, timeout_s, setting="learner_timeout_s"
        )

    def _actors(self) -> list[Any]:
        return [] if self._group.is_local else learner_actors(self._group)

    @property
    def references(self) -> list[ray.ObjectRef]:
        """Of all calls, from the learners that have not answered.

        Raises:
            RuntimeError: If a learner has failed, for which the others may wait for ever.
        """
        self._refuse_after_failure()
        return [reference for call in self._calls for reference in call.waiting]

    def _refuse_after_failure(self) -> None:
        if self.has_failed:
            raise RuntimeError("A learner has failed: build the algorithm anew.")

    @property
    def has_room(self) -> bool:
        """Whether another call would find a learner without work when it is its turn."""
        return sum(bool(call.waiting) for call in self._calls) < CALLS_AHEAD

    @property
    def updates_in_flight(self) -> int:
        """Updates asked of each learner whose results have not been taken."""
        return sum(call.num_updates for call in self._calls)

    @property
    def transitions_in_flight(self) -> int:
        """Transitions handed over that not all learners have taken in."""
        return sum(call.transitions for call in self._calls)

    def call(
        self,
        shards: list[list[Any]],
        transitions: int,
        num_updates: int,
        timesteps: dict[str, int],
        more_owed: bool = False,
    ) -> None:
        """Hands learner i the episodes, or references to them, of shards[i], and has it update.

        Its weights are published then, unless more updates are owed and they were a moment ago.
        """
        publish = self._publish and self._publications.is_due(
            num_updates, more_owed, time.monotonic()
        )
        arguments = (shards, num_updates, timesteps, publish)
        call = Call(num_updates, transitions)
        if not self._calls:
            self.supervision.heard()  # they were idle until now
        if self._group.is_local:
            result = _update(local_learner(self._group), *arguments)
            if isinstance(result, Exception):
                self.has_failed = True
                raise result
            call.results.append(result)
        else:
            actors = learner_actors(self._group)
            call.waiting = [actor.apply.remote(_update, *arguments) for actor in actors]
            for reference in call.waiting:
                self._arrivals.expect(reference)
        self._calls.append(call)

    def collect(self, ready: Collection[ray.ObjectRef]) -> list[Call]:
        """Calls that all learners have answered.

        Raises:
            Exception: The first that a learner met.
            RuntimeError: If one had met it before.
        """
        self._refuse_after_failure()
        for call in self._calls:
            for reference in [reference for reference in call.waiting if reference in ready]:
                try:
                    result = self._arrivals.result(reference)
                except RayError:
                    self.has_failed = True
                    raise
                if isinstance(result, Exception):
                    self.has_failed = True
                    raise result
                call.waiting.remove(reference)
                call.results.append(result)
                self.supervision.heard()
        done = [call for call in self._calls if not call.waiting]
        self._calls = [call for call in self._calls if call.waiting]
        return done

    def check(self) -> None:
        """Kills learners that have not answered for too long; `collect` raises what follows."""
        if any(call.waiting for call in self._calls):
            self.supervision.check("update")

    def published_weights(self) -> dict[str, Any]:
        """The weights of now as `LearnerResult` has them, after all that learners were asked for.

        Raises:
            RayError: If the first learner is dead.
        """
        if self._group.is_local:
            return _published(local_learner(self._group))
        with self.supervision.waiting("hand over their weights"):
            weights: dict[str, Any] = ray.get(self._actors()[0].apply.remote(_published))
        return weights

    def has_dead_learner(self) -> bool:
        """Whether a learner's process is dead. After a failure it takes a while to be known."""
        if self._group.is_local:
            return False
        patience = SECONDS_TO_KNOW if self.has_failed else 0
        if not all_in_service(self._group):
            patience = SECONDS_TO_KNOW_OF_A_NODE
        deadline = time.monotonic() + patience
        while True:
            if any(map(is_dead, learner_actors(self._group))):
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)

    def cancel(self) -> None:
        """Waits for all calls and drops what they bring."""
        references = self.references
        while len(wait(references, timeout_s=1, at_least=len(references))) < len(references):
            self.check()
        for reference in references:
            self._arrivals.forget(reference)
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


def picklable(error: Exception) -> Exception:
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
        learner.refresh_replay(num_updates)
        before = learner.replay.num_added
        metrics = learner.update(
            episodes=[episode for batch in mine if isinstance(batch, list) for episode in batch],
            episodes_refs=[batch for batch in mine if isinstance(batch, ray.ObjectRef)],
            num_updates=num_updates,
            timesteps=timesteps,
        )
        goals = learner.draw_exploration_goals(NUM_EXPLORATION_GOALS)
        weights = None
        if publish and learner._learner_index == 0:
            weights = _published(learner)
    except Exception as error:
        return picklable(error)
    return LearnerResult(
        metrics=metrics,
        replay_transitions=len(learner.replay),
        transitions=learner.replay.num_added - before,
        exploration_goals=goals,
        weights=weights,
        seconds=time.perf_counter() - start,
    )


def _published(learner: ODACTorchLearner) -> dict[str, Any]:
    """RLlib's state of the inference-only module, its weights a reference into the object store."""
    module = f"{COMPONENT_RL_MODULE}/{DEFAULT_MODULE_ID}"
    weights: dict[str, Any] = learner.get_state(components=[module], inference_only=True)
    weights[COMPONENT_RL_MODULE] = ray.put(weights[COMPONENT_RL_MODULE])
    return weights
