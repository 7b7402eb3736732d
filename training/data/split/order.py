"""The order in which examples are trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..cleaning.exact_duplicates import keyed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def training_order(
    how: str,
    seed: int,
    train: NDArray[np.int64],
    *,
    hashes: NDArray[np.uint64],
    ends: NDArray[np.int64],
    input_ids: NDArray[np.int32],
    trained: NDArray[np.uint8],
) -> NDArray[np.int64]:
    """The training examples in order.

    Args:
        how: "shuffled" (by the seed), "as_given", "length" (short ones first) or "difficulty" (those of
            frequent tokens first).
        train: (examples to train on,) their numbers.
        hashes, ends: (examples,) content hash of the row, and where the example's tokens end.
        input_ids, trained: (tokens,).
    """
    import numpy as np

    if how == "as_given":
        return train
    if how == "shuffled":
        # Examples of one row share its hash: their number keeps them apart.
        keys = keyed(hashes[train] ^ train.astype(np.uint64), seed, "order")
    elif how == "length":
        keys = np.diff(ends, prepend=0)[train]
    else:
        keys = difficulty(ends, input_ids, trained)[train]
    return train[np.argsort(keys, kind="stable")]


def difficulty(
    ends: NDArray[np.int64], input_ids: NDArray[Any], trained: NDArray[Any]
) -> NDArray[np.float64]:
    """How rare an example's trained tokens are: their mean surprisal, -log2 p, in this data.

    A unigram measure: it needs no model, and ranks jargon and names above plain words, as word rarity does
    for curricula of translation (Platanios et al., 2019).
    """
    import numpy as np

    counts = np.bincount(input_ids[trained.astype(bool)], minlength=1)
    surprisal = -np.log2(np.maximum(counts, 1) / max(1, counts.sum()))
    result = np.zeros(len(ends))
    start = 0
    for index, end in enumerate(ends.tolist()):
        learnt = input_ids[start:end][trained[start:end].astype(bool)]
        result[index] = surprisal[learnt].mean() if len(learnt) else 0.0
        start = end
    return result
