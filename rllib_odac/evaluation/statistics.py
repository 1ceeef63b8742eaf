"""Statistics of few runs: interquartile means, stratified bootstrap, probability of improvement.

The formulas of Agarwal, Schwarzer, Castro, Courville and Bellemare, "Deep Reinforcement Learning at
the Edge of the Statistical Precipice" (NeurIPS 2021). Their package rliable would bring
statsmodels, arch and seaborn along; `scipy.stats.bootstrap` knows no strata, and runs are drawn
within their task here.

`Scores` are a method's results: for each task an array (..., N), the last axis being its runs. The
axes before are carried through, so that all bootstrap samples are computed at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import stats

Array = np.ndarray[Any, Any]
Scores = Sequence[Array]

REPETITIONS = 2000
LEVEL = 0.95


def interquartile_mean(scores: Scores) -> Array:
    """Mean of the middle half of all runs of all tasks.

    Every task weighs the same: where they differ in their numbers of runs, each run stands in for
    so many that the numbers are equal.

    Args:
        scores: For each task (..., N_t) results.

    Returns:
        (...) means of what is left without the lowest and the highest quarter, rounded down.
    """
    count = math.lcm(*(runs.shape[-1] for runs in scores))
    pooled = np.concatenate(
        [np.repeat(runs, count // runs.shape[-1], axis=-1) for runs in scores], axis=-1
    )
    middle: Array = stats.trim_mean(pooled, 0.25, axis=-1)
    return middle


def probability_of_improvement(first: Scores, second: Scores) -> Array:
    """Probability that a run of the first method is higher than one of the second.

    Args:
        first: For each task (..., N_t) results of one method.
        second: For each task (..., M_t) results of the other.

    Returns:
        (...) means over tasks of the Mann-Whitney statistic / (N_t M_t); ties count half.
    """
    by_task = []
    for ours, theirs in zip(first, second, strict=True):
        ours, theirs = ours[..., :, None], theirs[..., None, :]  # noqa: PLW2901
        by_task.append(((ours > theirs) + 0.5 * (ours == theirs)).mean((-2, -1)))
    mean: Array = np.mean(by_task, axis=0)
    return mean


def performance_profile(scores: Scores, thresholds: Array) -> Array:
    """Share of runs above each threshold, the mean over tasks.

    Args:
        scores: For each task (..., N_t) results.
        thresholds: (K,) thresholds τ.

    Returns:
        (..., K) shares in [0, 1], which fall with τ.
    """
    by_task = [(runs[..., None, :] > thresholds[:, None]).mean(-1) for runs in scores]
    mean: Array = np.mean(by_task, axis=0)
    return mean


def bootstrap_interval(
    statistic: Callable[..., Array],
    *methods: Scores,
    level: float = LEVEL,
    repetitions: int = REPETITIONS,
    seed: int = 0,
) -> tuple[Array, Array]:
    """Percentile interval of a statistic by stratified bootstrap: runs are drawn within tasks.

    With three runs a task it is too narrow, as every interval from three runs is.

    Args:
        statistic: Of the scores of as many methods as are given.
        *methods: Scores, for each task (N_t,).
        level: Share of the bootstrap distribution within the interval, in (0, 1).
        repetitions: Number of bootstrap samples.
        seed: Of the samples; the same seed gives the same interval.

    Returns:
        Lower and upper end, each of the statistic's shape.
    """
    rng = np.random.default_rng(seed)
    samples = [
        [runs[rng.integers(len(runs), size=(repetitions, len(runs)))] for runs in scores]
        for scores in methods
    ]
    tail = (1 - level) / 2
    low, high = np.quantile(statistic(*samples), [tail, 1 - tail], axis=0)
    return low, high


def rank_correlation(x: Sequence[float] | Array, y: Sequence[float] | Array) -> float:
    """Spearman's rank correlation in [−1, 1]; NaN where one of them does not vary."""
    if len(set(x)) < 2 or len(set(y)) < 2:
        return math.nan
    return float(stats.spearmanr(x, y).statistic)


def median_time(times: Sequence[float | None]) -> float | None:
    """Median of times until something was reached; None stands for never, which is latest.

    Returns:
        The median, or None if it is never.
    """
    median = float(np.median([math.inf if time is None else time for time in times]))
    return median if math.isfinite(median) else None
