"""One training example: the interface between data and the engines."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

IGNORED = -100
"""The label of a token that carries no loss."""


class Example(NamedTuple):
    """One sequence to train on. `labels[i]` is `input_ids[i]`, or -100 if the token carries no loss."""

    input_ids: list[int]
    labels: list[int]


class MaskedTokens(NamedTuple):
    """An example before it is stored.

    Args:
        input_ids: (tokens,)
        trained: the ranges of tokens that carry loss: first and last (exclusive) of each.
    """

    input_ids: NDArray[np.int32]
    trained: list[tuple[int, int]]

    @property
    def trained_tokens(self) -> int:
        """Number of tokens that carry loss."""
        return sum(end - start for start, end in self.trained)

    def example(self) -> Example:
        """The same example with labels."""
        ids: list[int] = self.input_ids.tolist()
        labels = [IGNORED] * len(ids)
        for start, end in self.trained:
            labels[start:end] = ids[start:end]
        return Example(ids, labels)

    def part(self, start: int, end: int) -> MaskedTokens:
        """The tokens from `start` to `end`."""
        clipped = [(max(first, start) - start, min(last, end) - start) for first, last in self.trained]
        return MaskedTokens(
            self.input_ids[start:end], [(first, last) for first, last in clipped if first < last]
        )
