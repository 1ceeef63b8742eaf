"""How much of the metric's differences each hyper-parameter explains by itself.

For each hyper-parameter the ranks of the metric are fitted by a parabola in the ranks of its
values or, where these have no order, by a mean for each value. The share of variance explained is
adjusted for the number of coefficients (adjusted R²), and a permutation test says how often chance
does as well. Ranks are invariant to scales and robust to outliers. This is a main effect:
interactions are not seen. A searcher that favours a region and a scheduler that ends trials early
bias it towards what was tried.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from rllib_odac.evaluation.statistics import rank_correlation

PERMUTATIONS = 2000
MIN_CONFIGURATIONS = 6

_Floats = NDArray[np.float64]


def importances(
    values: pd.DataFrame, metric: Sequence[float], numeric: Sequence[str], seed: int = 0
) -> pd.DataFrame:
    """Main effects of hyper-parameters on a metric.

    Args:
        values: One row a configuration, one column a hyper-parameter.
        metric: The metric of each configuration; NaN leaves one out.
        numeric: Columns whose values have an order.
        seed: Of the permutations.

    Returns:
        By hyper-parameter, the most important first: `explained`, the adjusted share of variance
        in [0, 1]; `p_value` of the permutation test; `direction`, Spearman's rank correlation
        with the metric, NaN where values have no order. Empty below `MIN_CONFIGURATIONS`.
    """
    known = np.isfinite(np.asarray(metric, float))
    target = stats.rankdata(np.asarray(metric, float)[known])
    rows = {}
    if len(target) >= MIN_CONFIGURATIONS and np.ptp(target) > 0:
        for name in values:
            column = values[name][known].tolist()
            is_ordered = name in numeric and all(isinstance(v, int | float) for v in column)
            design = _parabola(column) if is_ordered else _means(column)
            test = stats.permutation_test(
                (target,),
                lambda targets, axis, design=design: _adjusted_r2(design, targets),
                permutation_type="pairings",
                vectorized=True,
                n_resamples=PERMUTATIONS,
                alternative="greater",
                rng=seed,
            )
            rows[str(name)] = {
                "explained": max(0.0, float(test.statistic)),
                "p_value": float(test.pvalue),
                "direction": rank_correlation(column, target.tolist()) if is_ordered else np.nan,
            }
    columns = ["explained", "p_value", "direction"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    return table.sort_values("explained", ascending=False, kind="stable")


def _parabola(column: Sequence[float]) -> _Floats:
    """Regressors 1, x and x² of the centred ranks x. (N, 3)"""
    ranks = stats.rankdata(column)
    return np.vander(ranks - ranks.mean(), 3, increasing=True)


def _means(column: Sequence[Any]) -> _Floats:
    """An indicator for each different value. (N, K)"""
    codes, kinds = pd.factorize(pd.Series([json.dumps(value) for value in column]))
    return np.eye(len(kinds))[codes]


def _adjusted_r2(design: _Floats, targets: _Floats) -> _Floats:
    """Adjusted R² of the regression of each row of targets. (..., N) -> (...)"""
    u, s, _ = np.linalg.svd(design, full_matrices=False)
    basis = u[:, s > 1e-9 * s[0]]
    count, coefficients = basis.shape
    if count <= coefficients:
        return np.zeros(targets.shape[:-1])
    centred = targets - targets.mean(axis=-1, keepdims=True)
    total = (centred**2).sum(axis=-1)
    left = ((centred - centred @ basis @ basis.T) ** 2).sum(axis=-1)
    return np.asarray(1 - (left / (count - coefficients)) / (total / (count - 1)))
