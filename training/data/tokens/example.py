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

    def windows(self, size: int) -> list[MaskedTokens]:
        """The tokens in windows of at most `size`, so that each token but the first is predicted once.

        A window begins with the last token of the one before, which has no label there.
        """
        windows = [self.part(0, size)]
        for start in range(size - 1, len(self.input_ids) - 1, size - 1):
            window = self.part(start, start + size)
            labelled = [(max(1, first), last) for first, last in window.trained if last > 1]
            windows.append(window._replace(trained=labelled))
        return windows

    def part(self, start: int, end: int) -> MaskedTokens:
        """The tokens from `start` to `end`."""
        clipped = [(max(first, start) - start, min(last, end) - start) for first, last in self.trained]
        return MaskedTokens(
            self.input_ids[start:end], [(first, last) for first, last in clipped if first < last]
        )
