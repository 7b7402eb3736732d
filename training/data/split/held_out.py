"""The held-out rows: those with the smallest keyed hash of seed and content.

So the split needs no second pass over the data, keeps equal and nearly equal rows on the same side, and
changes little when rows are appended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ..cleaning.exact_duplicates import keyed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Share = float | Literal["auto"]

USUAL_SHARE = 0.05
MIN_HELD_OUT, MAX_HELD_OUT = 8, 500
"""The mean loss of fewer rows says little, and that of more rows no more."""
FEWEST_ROWS = 20
"""Of fewer rows none are held out, unless a share is asked for."""
LARGE_SHARE = 0.1
"""A larger share than this is told to the user."""


def held_out_count(rows: int, share: Share) -> int:
    """Number of held-out rows of `rows` rows. A given share is always kept to; one row stays in training."""
    if share == "auto":
        if rows < FEWEST_ROWS:
            return 0
        return min(MAX_HELD_OUT, max(MIN_HELD_OUT, round(USUAL_SHARE * rows)))
    if share == 0 or rows < 2:
        return 0
    return min(rows - 1, max(1, round(share * rows)))


def note_on_held_out(rows: int, share: Share) -> str | None:
    """A sentence for the user where the split of a small dataset may be a surprise; else None."""
    count = held_out_count(rows, share)
    if rows == 0 or share == 0:
        return None
    if not count:
        few = "1 row is" if rows == 1 else f"{rows} rows are"
        return f"No rows are held out for evaluation: {few} too few for a split."
    if share == "auto" and count > LARGE_SHARE * rows:
        return f"{count} of {rows} rows are held out for evaluation; held_out=0 trains on all of them."
    return None


def held_out(
    groups: NDArray[np.uint64], parts: NDArray[np.uint32], share: Share, seed: int
) -> NDArray[np.bool_]:
    """A mask of the held-out rows.

    Args:
        groups: (rows,) content hash of each row, equal for all rows of a cluster of duplicates.
        parts: (rows,) index of each row's file. Each file gives its share.
        share: of the rows, 0 to 1, or "auto".

    A cluster that is larger than the rest of the quota stays in training, so fewer rows may be held out.
    """
    import numpy as np

    chosen = np.zeros(len(groups), bool)
    count = held_out_count(len(groups), share)
    if count == 0:
        return chosen
    order = keyed(groups, seed, "held out")
    quotas = {
        part: quota for part, quota in _quotas(parts, count).items() if quota
    }  # there may be many files
    for part, quota in quotas.items():
        room = quota - int((chosen & (parts == part)).sum())
        for group in _smallest(order[(parts == part) & ~chosen], count):
            if room <= 0:
                break
            members = order == group
            size = int(members.sum())
            if size <= room:
                chosen |= members
                room -= size
    return chosen


def _smallest(order: NDArray[np.uint64], count: int) -> list[int]:
    """The smallest distinct keys in ascending order; more than are needed for `count` rows."""
    import numpy as np

    if len(order) > 4 * count:
        order = np.partition(order, 4 * count)[: 4 * count]
    return np.unique(order).tolist()


def _quotas(parts: NDArray[np.uint32], count: int) -> dict[int, int]:
    """`count` divided among the files in proportion to their rows (largest remainder method)."""
    import numpy as np

    names, sizes = np.unique(parts, return_counts=True)
    exact = sizes * count / len(parts)
    quotas = np.floor(exact).astype(int)
    for index in np.argsort(quotas - exact, kind="stable")[: count - int(quotas.sum())]:
        quotas[index] += 1
    return dict(zip(names.tolist(), quotas.tolist(), strict=True))
