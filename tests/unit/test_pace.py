"""Sizes of calls and of what sampling is ahead by, from the learners' pace."""

from __future__ import annotations

import pytest

from rllib_odac.learner import UPDATES_PER_DRAW
from rllib_odac.runtime.pace import CALL_S, MAX_LAG, MAX_LAG_S, PUBLISH_EVERY_S, Pace, Publications


def at(updates_per_s: float, max_lag: int | str = "auto") -> Pace:
    pace = Pace(max_lag)
    pace.note(160, 160 / updates_per_s)
    return pace


@pytest.mark.parametrize("updates_per_s", [10, 75, 160, 1000, 3000, 20_000])
def test_a_call_takes_as_long_as_it_should_in_whole_draws(updates_per_s):
    updates = at(updates_per_s).updates_per_call
    assert updates % UPDATES_PER_DRAW == 0
    assert updates >= UPDATES_PER_DRAW
    due = max(UPDATES_PER_DRAW, CALL_S * updates_per_s)
    assert due - UPDATES_PER_DRAW < updates <= due + 1e-6


def test_a_slow_learner_and_one_that_has_not_answered_get_the_least():
    for pace in (Pace("auto"), at(75)):
        assert pace.updates_per_call == UPDATES_PER_DRAW
        assert pace.max_lag == MAX_LAG
    pace = Pace("auto")
    pace.note(0, 1e-9)  # episodes alone
    pace.note(1, 1e-9)
    assert pace.updates_per_call == UPDATES_PER_DRAW


def test_a_fast_learner_may_be_farther_behind_unless_a_number_is_asked_for():
    assert at(3000).max_lag == pytest.approx(3000 * MAX_LAG_S)
    assert at(3000, max_lag=30).max_lag == 30
    assert at(3000, max_lag=0).max_lag == 0


def test_it_follows_a_learner_that_changes():
    pace = at(10)  # while everything is compiled
    for _ in range(40):
        pace.note(16, 16 / 3000)
    assert pace.updates_per_call == pytest.approx(CALL_S * 3000, abs=UPDATES_PER_DRAW)


def test_weights_are_published_so_often_at_most_but_never_kept_back():
    publications = Publications()
    assert not publications.is_due(0, more_owed=False, now=0.0)  # episodes alone
    moment = PUBLISH_EVERY_S / 4
    due = [publications.is_due(16, more_owed=True, now=i * moment) for i in range(9)]
    assert [i for i, each in enumerate(due) if each] == [0, 4, 8]
    assert publications.is_due(16, more_owed=False, now=9 * moment)
    assert not publications.is_due(16, more_owed=True, now=10 * moment)
