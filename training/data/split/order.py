"""The training order of examples."""

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
    """The numbers of the training examples in training order.

    Args:
        how: "shuffled" (by the seed), "as_given", "length" (short examples first) or "difficulty" (examples
            of frequent tokens first).
        train: (training examples,) their numbers.
        hashes, ends: (examples,) content hash of the row, and index after the example's last token.
        input_ids, trained: (tokens,) of all examples.
    """
    import numpy as np

    if how == "as_given":
        return train
    if how == "shuffled":
        # Examples of the same row have the same hash; their number makes the keys distinct.
        keys = keyed(hashes[train] ^ train.astype(np.uint64), seed, "order")
    elif how == "length":
        keys = np.diff(ends, prepend=0)[train]
    else:
        keys = difficulty(ends, input_ids, trained)[train]
    return train[np.argsort(keys, kind="stable")]


def difficulty(
    ends: NDArray[np.int64], input_ids: NDArray[Any], trained: NDArray[Any]
) -> NDArray[np.float64]:
    """The mean surprisal, -log2 p in bits, of each example's trained tokens: (examples,).

    p is the frequency of the token in this data (a unigram model), as word rarity in curricula for
    translation (Platanios et al., 2019). Technical terms and names rank above frequent words.
    """
    import numpy as np

    counts = np.bincount(input_ids[trained.astype(bool)], minlength=1)
    surprisal = -np.log2(np.maximum(counts, 1) / max(1, counts.sum()))
    result = np.zeros(len(ends))
    start = 0
    for index, end in enumerate(ends.tolist()):
        tokens = input_ids[start:end][trained[start:end].astype(bool)]
        result[index] = surprisal[tokens].mean() if len(tokens) else 0.0
        start = end
    return result
