"""Requests to stand-ins for env runners: whose turn it is, and what a sample costs."""

from __future__ import annotations

import functools
import random
import sys
from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rllib_odac.runtime import arrivals, env_runner_requests, idle
from rllib_odac.runtime.env_runner_requests import EnvRunnerRequests, PolicySnapshot, Sample
from rllib_odac.runtime.faults import StepAccounting
from rllib_odac.runtime.idle import Idle

FILES = {module.__file__ for module in (arrivals, env_runner_requests, idle)}
SAMPLE = Sample(episodes=None, transitions=0, env_steps=100, unfinished_steps=100, metrics=None)


class Told(arrivals.Arrivals):
    """References that come about when the test says so."""

    def expect(self, reference):
        pass

    def result(self, reference):
        return SAMPLE


def requests_to(runners: int) -> EnvRunnerRequests:
    """To so many env runners that are all healthy; a request's reference is a new object."""
    handle = SimpleNamespace(apply=SimpleNamespace(remote=lambda *_: object()))
    actors = dict.fromkeys(range(1, runners + 1), handle)
    manager = SimpleNamespace(
        actors=lambda: actors,
        healthy_actor_ids=lambda: list(actors),
        is_actor_healthy=lambda runner: True,
    )
    group = SimpleNamespace(_worker_manager=manager)
    return EnvRunnerRequests(group, 60.0, 600.0, StepAccounting(), Told())


def ask_all(requests: EnvRunnerRequests) -> None:
    while (runner := requests.idlest(2)) is not None:
        requests.request(runner, 100, PolicySnapshot())


def lines_run(function) -> int:
    """Lines of the driver's bookkeeping that a call runs, each turn of a loop counted."""
    count = 0

    def trace(frame, event, _):
        nonlocal count
        if frame.f_code.co_filename not in FILES:
            return None
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)
    return count


def answer(requests: EnvRunnerRequests, reference: object) -> None:
    """All that the driver does of one sample and of the request that follows it."""
    requests.check_env_runners()
    (sample,) = requests.collect([reference])
    requests.request(requests.idlest(2), sample.env_steps, PolicySnapshot())
    assert requests.has_pending


def test_a_sample_costs_the_same_with_ten_env_runners_and_a_thousand():
    costs = {}
    for runners in (10, 1000):
        requests = requests_to(runners)
        requests.check_env_runners()  # looks at all of them, as often as CHECK_EVERY_S says
        ask_all(requests)
        assert requests.env_steps_expected == 200 * runners
        moments = random.Random(0)
        costs[runners] = [
            lines_run(functools.partial(answer, requests, moments.choice(requests.references)))
            for _ in range(20)
        ]
        assert requests.env_steps_expected == 200 * runners
    assert set(costs[10]) == set(costs[1000])


def test_what_is_overdue_is_no_longer_expected_and_its_sample_is_taken(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(env_runner_requests.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(env_runner_requests, "wait", lambda references, timeout_s: set())
    requests = requests_to(1)
    requests.check_env_runners()
    requests.request(1, 100, PolicySnapshot())
    now[0] = 59.0
    requests.request(1, 50, PolicySnapshot())
    first, second = requests.references
    assert requests.pending == [first, second]
    now[0] = 61.0
    assert requests.pending == [second]
    assert requests.env_steps_expected == 50
    assert len(requests.collect([first])) == 1
    assert requests.env_steps_expected == 50
    assert len(requests.collect([second, first])) == 1
    assert not requests.has_pending
    assert requests.env_steps_expected == 0


@given(st.lists(st.tuples(st.sampled_from(["ask", "answer", "die", "live"]), st.integers(0, 4))))
def test_the_idlest_is_one_with_the_fewest_requests(events):
    crowd, model = Idle(), Counter()
    alive: set[int] = set()
    for event, runner in events:
        if event == "live":
            crowd.are_alive([runner])
            alive.add(runner)
        elif runner in alive:
            match event:
                case "ask":
                    crowd.asked(runner)
                    model[runner] += 1
                case "answer":
                    crowd.answered(runner)
                    model[runner] = max(0, model[runner] - 1)
                case "die":
                    crowd.died(runner)
                    alive.discard(runner)
                    del model[runner]
        fewest = min((model[each] for each in alive), default=3)
        first = crowd.first(3)
        assert (first is None) == (fewest >= 3)
        assert first is None or (first in alive and model[first] == fewest)


def test_an_answer_of_one_that_has_died_is_no_news():
    crowd = Idle()
    crowd.answered(1)
    assert crowd.first(1) is None
    with pytest.raises(KeyError):
        crowd.asked(1)
