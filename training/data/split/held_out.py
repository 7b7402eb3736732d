"""The held-out rows: those with the smallest keyed hash of seed and content.

So the split needs no second pass over the data, keeps equal and nearly equal rows on the same side, and
changes little when rows are appended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..cleaning.exact_duplicates import keyed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MIN_HELD_OUT, MAX_HELD_OUT = 8, 500
LARGEST_SHARE = 0.1
"""No rows are held out if `MIN_HELD_OUT` rows are more than this share of the dataset."""


def held_out_count(rows: int, share: float) -> int:
    """Number of held-out rows of `rows` rows; 0 if it is off or the dataset is too small."""
    if share == 0 or max(share, LARGEST_SHARE) * rows < MIN_HELD_OUT:
        return 0
    return min(MAX_HELD_OUT, max(MIN_HELD_OUT, round(share * rows)))


def why_none_is_held_out(rows: int, share: float) -> str | None:
    """A sentence for the user if the dataset is too small; else None."""
    if rows == 0 or share == 0 or held_out_count(rows, share):
        return None
    few = "1 row is" if rows == 1 else f"{rows} rows are"
    return f"No rows are held out for evaluation: {few} too few for a split."


def held_out(
    groups: NDArray[np.uint64], parts: NDArray[np.uint16], share: float, seed: int
) -> NDArray[np.bool_]:
    """A mask of the held-out rows.

    Args:
        groups: (rows,) content hash of each row, equal for all rows of a cluster of duplicates.
        parts: (rows,) index of each row's file. Each file gives its share.
        share: of the rows, 0 to 1.

    A cluster that is larger than the rest of the quota stays in training, so fewer rows may be held out.
    """
    import numpy as np

    chosen = np.zeros(len(groups), bool)
    count = held_out_count(len(groups), share)
    if count == 0:
        return chosen
    order = keyed(groups, seed, "held out")
    for part, quota in _quotas(parts, count).items():
        room = quota - int((chosen & (parts == part)).sum())
        for group in _smallest(order[(parts == part) & ~chosen]):
            if room <= 0:
                break
            members = order == group
            size = int(members.sum())
            if size <= room:
                chosen |= members
                room -= size
    return chosen


def _smallest(order: NDArray[np.uint64]) -> list[int]:
    """The smallest distinct keys in ascending order; more than can be needed."""
    import numpy as np

    if len(order) > 4 * MAX_HELD_OUT:
        order = np.partition(order, 4 * MAX_HELD_OUT)[: 4 * MAX_HELD_OUT]
    return np.unique(order).tolist()


def _quotas(parts: NDArray[np.uint16], count: int) -> dict[int, int]:
    """`count` divided among the files in proportion to their rows (largest remainder method)."""
    import numpy as np

    names, sizes = np.unique(parts, return_counts=True)
    exact = sizes * count / len(parts)
    quotas = np.floor(exact).astype(int)
    for index in np.argsort(quotas - exact, kind="stable")[: count - int(quotas.sum())]:
        quotas[index] += 1
    return dict(zip(names.tolist(), quotas.tolist(), strict=True))
