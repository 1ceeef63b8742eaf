"""The statistics of comparisons against SciPy, by hand, and what must hold of them."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu, trim_mean

from rllib_odac.evaluation.statistics import (
    bootstrap_interval,
    interquartile_mean,
    median_time,
    performance_profile,
    probability_of_improvement,
)

# Few different values: ties are common.
RUNS = st.lists(st.integers(0, 6), min_size=1, max_size=6).map(lambda x: np.array(x, float))
SCORES = st.lists(RUNS, min_size=1, max_size=4)
PAIRS = st.lists(st.tuples(RUNS, RUNS), min_size=1, max_size=4)


@given(st.integers(1, 6).flatmap(lambda n: st.lists(
    st.lists(st.floats(-9, 9), min_size=n, max_size=n).map(np.array), min_size=1, max_size=4)
))  # fmt: skip
def test_interquartile_mean_is_the_trimmed_mean_of_all_runs(scores):
    assert interquartile_mean(scores) == pytest.approx(trim_mean(np.concatenate(scores), 0.25))


@given(PAIRS)
def test_probability_of_improvement_is_the_mean_mann_whitney_statistic(pairs):
    first, second = zip(*pairs, strict=True)
    expected = [mannwhitneyu(x, y).statistic / (len(x) * len(y)) for x, y in pairs]
    found = probability_of_improvement(first, second)
    assert found == pytest.approx(np.mean(expected))
    assert found + probability_of_improvement(second, first) == pytest.approx(1)
    assert probability_of_improvement(first, first) == pytest.approx(0.5)


def test_by_hand():
    first, second = (
        [np.array([1.0, 2, 3, 10]), np.array([5.0])],
        [np.array([2.0, 4]), np.array([5.0])],
    )
    # The second task's one run counts four times: 1 2 3 5 | 5 5 5 10, the middle four 3 5 5 5.
    assert interquartile_mean(first) == 4.5
    assert interquartile_mean(first[:1]) == 2.5
    # 2 ties with 2, 3 beats 2, 10 beats both: 3.5 of 8; a tie in the second task.
    assert probability_of_improvement(first, second) == (3.5 / 8 + 0.5) / 2
    shares = performance_profile(first, np.array([0.0, 2.0, 5.0]))
    np.testing.assert_allclose(shares, [1, (2 / 4 + 1) / 2, 1 / 4 / 2])
    assert median_time([3000, None, 1000]) == 3000
    assert median_time([3000, None, None]) is None
    assert median_time([3000, None]) is None


@given(SCORES, st.integers(1, 3))
def test_tasks_weigh_the_same_however_many_runs_they_have(scores, copies):
    repeated = [np.repeat(scores[0], copies), *scores[1:]]
    for statistic in (
        interquartile_mean,
        lambda x: probability_of_improvement(x, scores),
        lambda x: performance_profile(x, np.arange(6.0)),
    ):
        # Where the trimmed share is rounded, so may the mean be.
        if statistic is not interquartile_mean or sum(map(len, scores)) % 4 == 0:
            rounding = 6 / 4 if statistic is interquartile_mean else 1e-9
            np.testing.assert_allclose(statistic(repeated), statistic(scores), atol=rounding)


@given(SCORES)
def test_profiles_fall_from_one_to_zero(scores):
    shares = performance_profile(scores, np.linspace(-1, 7, 17))
    assert (np.diff(shares) <= 1e-12).all()
    assert shares[0] == pytest.approx(1)
    assert shares[-1] == 0


@given(SCORES)
def test_intervals_lie_within_the_runs_and_repeat_themselves(scores):
    low, high = bootstrap_interval(interquartile_mean, scores, repetitions=50)
    every = np.concatenate(scores)
    assert every.min() - 1e-9 <= low <= high <= every.max() + 1e-9
    assert bootstrap_interval(interquartile_mean, scores, repetitions=50) == (low, high)


def test_runs_are_drawn_within_their_tasks():
    # Constant tasks: every sample is the data, however different the tasks are.
    scores = [np.full(3, 0.0), np.full(5, 100.0)]
    low, high = bootstrap_interval(interquartile_mean, scores)
    assert low == high == interquartile_mean(scores) == 50
    profile = partial(performance_profile, thresholds=np.array([-1.0, 50.0]))
    np.testing.assert_allclose(bootstrap_interval(profile, scores), [[1, 0.5], [1, 0.5]])


def test_intervals_cover_the_mean_as_often_as_they_say():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        low, high = bootstrap_interval(
            lambda scores: scores[0].mean(-1), [rng.normal(size=40)], repetitions=300
        )
        inside += low < 0 < high
    assert 0.88 < inside / 200 <= 1
