"""The difference of two models' losses on the same rows, with a bootstrap confidence interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 4_000
LEVEL = 0.99
"""Of the confidence interval. Intervals of few rows are too narrow, so it is not the usual 0.95."""
SEED = 0


class Difference(NamedTuple):
    """A mean difference per label token, in nats, and its interval; below 0 the second model is better."""

    mean: float
    low: float
    high: float


def paired_difference(before: Sequence[float], after: Sequence[float], tokens: Sequence[int]) -> Difference:
    """How much the loss per label token differs, and how surely.

    Rows are drawn with replacement (Efron 1979), since the tokens of a row belong together.

    Args:
        before, after: (rows,) the sum of each row's losses with the first and with the second model.
        tokens: (rows,) label tokens of each row.
    """
    change, weight = np.subtract(after, before), np.asarray(tokens, float)
    drawn = np.random.default_rng(SEED).integers(0, len(change), (RESAMPLES, len(change)))
    means = change[drawn].sum(1) / weight[drawn].sum(1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Difference(float(change.sum() / weight.sum()), float(low), float(high))
