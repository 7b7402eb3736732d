"""The difference of two models on the same rows: a bootstrap interval, and a test of rows that changed."""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, sqrt
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 20_000
LEVEL = 0.99
"""Of the confidence interval."""
SEED = 0
DRAWN_AT_ONCE = 2**22
"""Rows of resamples that are in memory together."""


class Difference(NamedTuple):
    """A mean difference per label token, in nats, and its interval; below 0 the second model is better."""

    mean: float
    low: float
    high: float


def paired_difference(before: Sequence[float], after: Sequence[float], tokens: Sequence[int]) -> Difference:
    """How much the loss per label token differs, and how surely.

    Rows are drawn with replacement (Efron 1979), since the tokens of a row belong together. The percentiles
    are those of the expanded interval (Hesterberg 2015), because the plain one is too narrow for few rows.

    Args:
        before, after: (rows,) the sum of each row's losses with the first and with the second model.
        tokens: (rows,) label tokens of each row.
    """
    change, weight = np.subtract(after, before), np.asarray(tokens, float)
    draw = np.random.default_rng(SEED)
    at_once = max(1, DRAWN_AT_ONCE // len(change))
    parts = [
        _means(change, weight, draw.integers(0, len(change), (min(at_once, left), len(change)), np.int32))
        for left in range(RESAMPLES, 0, -at_once)
    ]
    means = np.concatenate(parts)
    tail = outside(len(change))
    low, high = np.quantile(means, [tail, 1 - tail])
    return Difference(float(change.sum() / weight.sum()), float(low), float(high))


def _means(
    change: NDArray[np.float64], weight: NDArray[np.float64], drawn: NDArray[np.int32]
) -> NDArray[np.float64]:
    return change[drawn].sum(1) / weight[drawn].sum(1)


def outside(rows: int) -> float:
    """The share of resampled means on each side of the interval: less than (1 - LEVEL) / 2 for few rows.

    Φ(-√(n / (n - 1)) · t), with the quantile t of Student's distribution by the expansion of Fisher and
    Cornish (1960) in the normal quantile z.
    """
    z, freedom = NormalDist().inv_cdf((1 + LEVEL) / 2), rows - 1
    t = (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )
    return NormalDist().cdf(-sqrt(rows / freedom) * t)


def mcnemar(won: int, lost: int) -> float:
    """How likely rows change so unequally if neither model is better (McNemar 1947; exact, two-sided).

    Args:
        won, lost: rows that are right with the second model only, and with the first only.
    """
    changed = won + lost
    return min(1.0, 2 * sum(comb(changed, count) for count in range(min(won, lost) + 1)) / 2**changed)
