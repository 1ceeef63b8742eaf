"""How much of the figures' differences each hyper-parameter explains by itself.

For each hyper-parameter, the ranks of the figure are fitted by a parabola in the ranks of its
values or, where these have no order, by a mean for each value; the share of variance explained is
adjusted for the number of coefficients, and a permutation test says how often chance does as well.
Ranks do not care for scales and outliers. It is a main effect: what only a combination of
hyper-parameters does is not seen, and a searcher that favours a region, or a scheduler that ends
trials early, shows the hyper-parameters as they were tried, not as they are everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

PERMUTATIONS = 2000
MIN_CONFIGURATIONS = 6

_Floats = NDArray[np.float64]


def importances(
    values: pd.DataFrame, figure: Sequence[float], numeric: Sequence[str], seed: int = 0
) -> pd.DataFrame:
    """Main effects of hyper-parameters on a figure.

    Args:
        values: One row a configuration, one column a hyper-parameter.
        figure: The figure of each configuration.
        numeric: Columns whose values have an order.
        seed: Of the permutations.

    Returns:
        By hyper-parameter, the most important first: `explained`, the adjusted share of variance
        in [0, 1]; `p_value` of the permutation test; `direction`, Spearman's rank correlation
        with the figure, NaN where values have no order. Empty below `MIN_CONFIGURATIONS`.
    """
    columns = ["explained", "p_value", "direction"]
    known = np.isfinite(np.asarray(figure, float))
    target = _ranks(np.asarray(figure, float)[known])
    rows = {}
    rng = np.random.default_rng(seed)
    if len(target) >= MIN_CONFIGURATIONS and np.ptp(target) > 0:
        permuted = rng.permuted(np.tile(target, (PERMUTATIONS, 1)), axis=1)
        for name in values:
            column = values[name][known].tolist()
            design = _design(column, name in numeric)
            found = _explained(design, target[None])[0]
            chance = _explained(design, permuted)
            is_ordered = name in numeric and all(isinstance(v, int | float) for v in column)
            rows[str(name)] = {
                "explained": max(0.0, float(found)),
                # The values as they stand are one of the orders that chance may bring.
                "p_value": (1 + int((chance >= found - 1e-12).sum())) / (1 + PERMUTATIONS),
                "direction": _correlation(np.asarray(column, float), target)
                if is_ordered
                else np.nan,
            }
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    return table.sort_values("explained", ascending=False, kind="stable")


def _design(column: Sequence[Any], is_numeric: bool) -> _Floats:
    """Coefficients' columns, the constant first. (N, K)"""
    ones = np.ones(len(column))
    if is_numeric and all(isinstance(value, int | float) for value in column):
        ranks = _ranks(np.asarray(column, float))
        x = ranks - ranks.mean()
        return np.stack([ones, x, x**2], axis=1)
    names = [json.dumps(value) for value in column]
    kinds = sorted(set(names))[1:]
    return np.stack([ones, *([float(n == kind) for n in names] for kind in kinds)], axis=1)


def _explained(design: _Floats, targets: _Floats) -> _Floats:
    """Adjusted R² of each row of targets. (R, N) -> (R,)"""
    u, s, _ = np.linalg.svd(design, full_matrices=False)
    basis = u[:, s > 1e-9 * s[0]]
    centred = targets - targets.mean(axis=1, keepdims=True)
    total = (centred**2).sum(axis=1)
    left = ((centred - centred @ basis @ basis.T) ** 2).sum(axis=1)
    count, coefficients = len(design), basis.shape[1]
    if count <= coefficients:
        return np.zeros(len(targets))
    return np.asarray(1 - (left / (count - coefficients)) / (total / (count - 1)))


def _ranks(values: _Floats) -> _Floats:
    """Ranks from 1, equal values sharing their mean."""
    return np.asarray(pd.Series(values).rank(), np.float64)


def _correlation(values: _Floats, target: _Floats) -> float:
    ranks = _ranks(values)
    if np.ptp(ranks) == 0:
        return float("nan")
    return float(np.corrcoef(ranks, target)[0, 1])
