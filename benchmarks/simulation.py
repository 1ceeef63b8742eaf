"""A discrete-event simulation of the driver, the env runners and the learners of `ODAC`.

By the rules of `ODAC.training_step`: so many requests at a time to each env runner, so many calls
ahead to the learners, their sizes and how far samples are ahead by the same `Pace`. Every process
does one piece of work after the other, in the time that `Services` gives for it.

What it supposes: work always takes the same time; every sample holds as many finished transitions
as steps; learners begin updates together, wait for one another and pay for an all-reduce that grows
by 2 (L − 1) / L, as a ring's volume does; networks between nodes cost nothing; learners have
transitions from the beginning. Where a number of cores is given and fewer than the busy processes,
all of these go on at the same lower speed; and work beside another busy process takes `crowding`
times longer (hyper-threads, caches).
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from rllib_odac.runtime.pace import Pace, Publications

DRIVER, ENV_RUNNERS, LEARNERS, LAG_LIMIT = "driver", "env runners", "learners", "lag limit"
Work = tuple[str, float] | None  # for whom and how many seconds; None to sleep until woken


@dataclass(frozen=True)
class Services:
    """Seconds of work, each in a process that nobody disturbs.

    Attributes:
        env_step: Of an env runner: a step of one of its environments.
        fetch: ... taking in new weights.
        update: Of a learner: a gradient update.
        all_reduce: ... what two learners' updates take longer.
        store: ... taking a transition into its replay.
        learner_call: ... a call that asks for nothing.
        publish: Of the first learner: new weights after a call.
        request: Of the driver: asking an env runner for a sample.
        sample: ... taking note of a sample.
        call: ... calling a learner.
        answer: ... taking note of a learner's answer.
        step: ... what else is in a `training_step`.
        step_per_runner: ... the same, for every env runner that there is (until revision 549d4a0).
        crowding: How many times longer work takes beside another busy process.
    """

    env_step: float = 0.0
    fetch: float = 0.0
    update: float = 0.0
    all_reduce: float = 0.0
    store: float = 0.0
    learner_call: float = 0.0
    publish: float = 0.0
    request: float = 0.0
    sample: float = 0.0
    call: float = 0.0
    answer: float = 0.0
    step: float = 0.0
    step_per_runner: float = 0.0
    crowding: float = 1.0


@dataclass(frozen=True)
class Setting:
    """What is simulated, with ODAC's defaults.

    Attributes:
        num_env_runners: Remote ones; 0 for one in the driver.
        num_learners: Remote ones; 0 for one in the driver.
        updates_per_env_step: The ratio.
        asynchronous: Whether sampling and learning overlap.
        max_weight_lag: Updates that sampling may be ahead, or "auto".
        fragment: Environment steps of a request.
        requests_each: Requests that an env runner has at a time.
        updates_per_call: Of learners, at most; None for what their pace gives.
        calls_ahead: Calls that learners have at a time.
        evaluate_every: Environment steps between evaluations by the driver; None for none, or for
            such as env runners of their own make, which hold nothing up.
        evaluation_steps: Environment steps of an evaluation.
        cores: None where there are enough.
    """

    num_env_runners: int
    num_learners: int
    updates_per_env_step: float
    asynchronous: bool = True
    max_weight_lag: int | str = "auto"
    fragment: int = 100
    requests_each: int = 2
    updates_per_call: int | None = None
    calls_ahead: int = 2
    evaluate_every: int | None = None
    evaluation_steps: int = 0
    cores: int | None = None


class Cores:
    """Work under way, all of it at one speed."""

    def __init__(self, cores: int | None, crowding: float) -> None:
        self.now = 0.0
        self._cores, self._crowding = cores, crowding
        self._done = 0.0  # work of a process that has been busy all the time
        self._order = itertools.count()
        self._under_way: list[tuple[float, int, Callable[[], None]]] = []

    def start(self, work: float, then: Callable[[], None]) -> None:
        heapq.heappush(self._under_way, (self._done + work, next(self._order), then))

    def advance(self) -> None:
        """Goes on to the end of the next piece of work."""
        finish, _, _ = self._under_way[0]
        self.now += (finish - self._done) / self._speed()
        self._done = finish
        heapq.heappop(self._under_way)[-1]()

    def _speed(self) -> float:
        busy = len(self._under_way)
        if self._cores is None or busy == 1:
            return 1.0
        return min(1.0, self._cores / busy) / (self._crowding if self._cores > 1 else 1.0)


class Process:
    """Does what its generator yields, one piece after the other."""

    def __init__(self, cores: Cores, busy: Counter[str], steps: Iterator[Work]) -> None:
        self._cores, self._busy, self._steps = cores, busy, steps
        self._asleep = True

    def wake(self) -> None:
        if self._asleep:
            self._asleep = False
            self._next()

    def _next(self) -> None:
        work = next(self._steps)
        if work is None:
            self._asleep = True
            return
        (whose, seconds), start = work, self._cores.now

        def finish() -> None:
            self._busy[whose] += self._cores.now - start
            self._next()

        self._cores.start(seconds, finish)


@dataclass
class Call:
    """Of all learners: transitions for each, and updates that all make."""

    transitions: list[int]
    updates: int
    publish: bool = False
    seconds: float = 0.0  # that it took
    stored: int = 0
    answered: int = 0


class Simulation:
    """Training in one setting; `env_steps` and `updates` are what the driver knows of."""

    def __init__(self, setting: Setting, services: Services) -> None:
        self.setting, self.services = setting, services
        self.env_steps = self.steps_in_flight = self.updates = self.held = 0
        self.busy: Counter[str] = Counter()
        self.cores = Cores(setting.cores, services.crowding)
        self._pace = Pace(setting.max_weight_lag)
        self._evaluated = 0  # environment steps by the last evaluation
        self._publications = Publications()
        self._published = 0  # updates of the weights that the next request brings along
        self._calls: list[Call] = []  # that not all learners have answered
        self._todo = [deque[Call]() for _ in range(setting.num_learners)]
        self._requests = [deque[int]() for _ in range(setting.num_env_runners)]
        # Env runners that may get a request, the idlest first; an entry holds while it is true.
        self._taken = [0] * setting.num_env_runners
        self._free = [(0, runner) for runner in range(setting.num_env_runners)]
        self._samples: list[int] = []  # runners whose samples have arrived
        self._answers: list[Call] = []
        self._shards = [0] * max(1, setting.num_learners)
        self._next_learner = 0

        def process(steps: Iterator[Work]) -> Process:
            return Process(self.cores, self.busy, steps)

        self._runners = [process(self._env_runner(i)) for i in range(setting.num_env_runners)]
        self._learners = [process(self._learner(i)) for i in range(setting.num_learners)]
        overlap = setting.asynchronous and setting.num_env_runners > 0
        self._driver = process(self._overlap() if overlap else self._take_turns())
        self._driver.wake()

    def run(self, seconds: float) -> dict[str, Any]:
        """Rates and shares over the second half of so many seconds."""
        while self.cores.now < seconds / 2:
            self.cores.advance()
        start, steps, updates, held = self.cores.now, self.env_steps, self.updates, self.held
        busy = self.busy.copy()
        while self.cores.now < start + seconds / 2:
            self.cores.advance()
        passed, updates = self.cores.now - start, self.updates - updates
        steps, ratio = self.env_steps - steps, self.setting.updates_per_env_step
        processes = {LEARNERS: len(self._learners), ENV_RUNNERS: len(self._runners), DRIVER: 1}
        shares = {
            name: round((self.busy[name] - busy[name]) / passed / max(1, count), 2)
            for name, count in processes.items()
        }
        bottleneck = max(shares, key=lambda name: shares[name])
        if shares[bottleneck] < 0.9 and self.held > held:
            bottleneck = LAG_LIMIT
        return {
            # What sampling is ahead by at first, until the lag limit is reached, does not count.
            "env_steps_per_s": (min(steps, updates / ratio) if ratio else steps) / passed,
            "updates_per_s": updates / passed,
            "bottleneck": bottleneck,
            **{f"{name} busy": share for name, share in shares.items()},
        }

    # The rules ------------------------------------------------------------------------------------

    def due(self, env_steps: int) -> int:
        return int(env_steps * self.setting.updates_per_env_step)

    def _owed(self) -> int:
        made = self.updates + sum(call.updates for call in self._calls)
        return max(0, self.due(self.env_steps) - made)

    def _must_hold(self) -> bool:
        promised = self.env_steps + self.steps_in_flight + self.setting.fragment
        behind = self.due(promised) - self.updates
        is_alone = self.steps_in_flight == 0 and self.updates >= self.due(self.env_steps)
        return behind > self._pace.max_lag and not is_alone

    def _overlap(self) -> Iterator[Work]:
        """The driver in asynchronous mode."""
        setting, services = self.setting, self.services
        while True:
            while (runner := self._idlest()) is not None:
                if self._must_hold():
                    self.held += 1
                    break
                yield from self._request(runner)
            must_update = len(self._calls) < setting.calls_ahead and self._owed() > 0
            while not (self._samples or self._answers or must_update):
                yield None
            yield from self._take()
            yield from self._call(setting.updates_per_call or self._pace.updates_per_call)
            yield DRIVER, services.step + services.step_per_runner * setting.num_env_runners
            every = setting.evaluate_every
            if every is not None and self.env_steps >= self._evaluated + every:
                self._evaluated = self.env_steps
                yield DRIVER, setting.evaluation_steps * services.env_step

    def _take_turns(self) -> Iterator[Work]:
        """The driver in synchronous mode, or with env runners in its own process."""
        setting, services = self.setting, self.services
        while True:
            for runner in range(setting.num_env_runners):
                yield from self._request(runner)
            while len(self._samples) < setting.num_env_runners:
                yield None
            if not setting.num_env_runners:
                yield ENV_RUNNERS, setting.fragment * services.env_step
                self._note(setting.fragment)
            yield from self._take()
            yield from self._call()
            while self._calls:
                if not self._answers:
                    yield None
                yield from self._take()
            yield DRIVER, services.step + services.step_per_runner * setting.num_env_runners

    def _idlest(self) -> int | None:
        while self._free and self._taken[self._free[0][1]] != self._free[0][0]:
            heapq.heappop(self._free)
        return self._free[0][1] if self._free else None

    def _mark(self, runner: int, change: int) -> None:
        self._taken[runner] += change
        if self._taken[runner] < self.setting.requests_each:
            heapq.heappush(self._free, (self._taken[runner], runner))

    def _request(self, runner: int) -> Iterator[Work]:
        setting, services = self.setting, self.services
        yield DRIVER, services.request
        self.steps_in_flight += setting.fragment
        self._mark(runner, 1)
        self._requests[runner].append(self._published)
        self._runners[runner].wake()

    def _take(self) -> Iterator[Work]:
        """Takes in what has arrived."""
        samples, self._samples = sorted(self._samples), []
        answers, self._answers = self._answers, []
        for call in answers:
            yield DRIVER, self.services.answer
            call.answered += 1
            if call.answered == self.setting.num_learners:
                self._calls.remove(call)
                self._count(call)
        for runner in samples:
            yield DRIVER, self.services.sample
            self.steps_in_flight -= self.setting.fragment
            self._mark(runner, -1)
            self._note(self.setting.fragment)

    def _note(self, env_steps: int) -> None:
        self.env_steps += env_steps
        self._shards[self._next_learner] += env_steps
        self._next_learner = (self._next_learner + 1) % len(self._shards)

    def _count(self, call: Call) -> None:
        self.updates += call.updates
        if call.publish:
            self._published = self.updates
        self._pace.note(call.updates, call.seconds)

    def _call(self, max_updates: int | None = None) -> Iterator[Work]:
        """Hands transitions to the learners and has them make the updates that are owed."""
        setting, services = self.setting, self.services
        owed = updates = self._owed()
        if max_updates is not None:
            updates = min(updates, max_updates)
            nothing_new = updates == 0 and not any(self._shards)
            if nothing_new or len(self._calls) >= setting.calls_ahead:
                return
        publish = self._publications.is_due(updates, owed > updates, self.cores.now)
        call, self._shards = Call(self._shards, updates, publish), [0] * len(self._shards)
        if setting.num_learners:
            yield DRIVER, services.call * setting.num_learners
            self._calls.append(call)
            for todo, learner in zip(self._todo, self._learners, strict=True):
                todo.append(call)
                learner.wake()
        else:
            yield DRIVER, services.call + services.answer
            start = self.cores.now
            yield LEARNERS, services.learner_call + services.store * call.transitions[0]
            yield LEARNERS, self._updating(call, learner=0)
            call.seconds = self.cores.now - start
            self._count(call)

    def _learner(self, index: int) -> Iterator[Work]:
        todo = self._todo[index]
        while True:
            while not todo:
                yield None
            call, services, start = todo.popleft(), self.services, self.cores.now
            yield LEARNERS, services.learner_call + services.store * call.transitions[index]
            call.stored += 1
            for learner in self._learners:
                learner.wake()
            while call.stored < len(self._learners):  # statistics and gradients are summed
                yield None
            yield LEARNERS, self._updating(call, index)
            call.seconds = self.cores.now - start
            self._answers.append(call)
            self._driver.wake()

    def _updating(self, call: Call, learner: int) -> float:
        services, learners = self.services, max(1, self.setting.num_learners)
        all_reduce = services.all_reduce * 2 * (learners - 1) / learners
        publish = services.publish if learner == 0 and call.publish else 0.0
        return call.updates * (services.update + all_reduce) + publish

    def _env_runner(self, index: int) -> Iterator[Work]:
        known, requests = 0, self._requests[index]
        while True:
            while not requests:
                yield None
            weights = requests.popleft()
            if weights > known:
                known = weights
                yield ENV_RUNNERS, self.services.fetch
            yield ENV_RUNNERS, self.setting.fragment * self.services.env_step
            self._samples.append(index)
            self._driver.wake()
