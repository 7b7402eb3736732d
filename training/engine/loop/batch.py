"""Examples laid end to end as one row of tokens, with the boundaries between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...data.tokens.example import IGNORED, Example

ALIGNMENT = 2
"""Numbers of 8 bytes: kernels want their tensors to begin at multiples of 16 bytes."""


@dataclass(frozen=True)
class Segments:
    """Where each example lies in the row: tokens attend within their segment only."""

    lengths: tuple[int, ...]
    cu_seqlens: Tensor  # (segments + 1,) int32, the cumulated lengths
    max_seqlen: int


@dataclass(frozen=True)
class PackedBatch:
    """One micro-batch. At `label_positions` the next token is predicted; `targets` are these next tokens.

    All of them are views into `numbers`, so that a batch is pinned and moved by one copy.
    """

    numbers: Tensor  # int64
    lengths: tuple[int, ...]
    label_tokens: int
    useful_tokens: int
    input_ids: Tensor = field(init=False)  # (tokens,)
    position_ids: Tensor = field(init=False)  # (tokens,)
    label_positions: Tensor = field(init=False)  # (label_tokens,)
    targets: Tensor = field(init=False)  # (label_tokens,)
    segments: Segments = field(init=False)

    def __post_init__(self) -> None:
        tokens, labels, boundaries = sum(self.lengths), self.label_tokens, len(self.lengths) + 1
        counts = (tokens, tokens, labels, labels, -(-boundaries // 2))
        views = self.numbers.split_with_sizes([_aligned(count) for count in counts])
        names = ("input_ids", "position_ids", "label_positions", "targets")
        for name, view, count in zip(names, views, counts, strict=False):
            object.__setattr__(self, name, view[:count])
        segments = Segments(self.lengths, views[4].view(torch.int32)[:boundaries], max(self.lengths))
        object.__setattr__(self, "segments", segments)

    @property
    def examples(self) -> int:
        return len(self.lengths) - (self.useful_tokens < self.input_ids.numel())

    @property
    def example_of_label(self) -> Tensor:
        """The number of the example that each label position belongs to, (label_tokens,)."""
        return torch.bucketize(self.label_positions, self.segments.cu_seqlens[1:], right=True)

    def to(self, device: torch.device) -> PackedBatch:
        """The same on `device`; from pinned memory the copy does not wait."""
        return self if device.type == "cpu" else self._with(self.numbers.to(device, non_blocking=True))

    def pinned(self) -> PackedBatch:
        """The same in page-locked memory."""
        return self._with(self.numbers.pin_memory())

    def _with(self, numbers: Tensor) -> PackedBatch:
        return PackedBatch(numbers, self.lengths, self.label_tokens, self.useful_tokens)


def packed_batch(examples: Sequence[Example], *, multiple: int = 1) -> PackedBatch:
    """`examples` end to end, the row filled up to a multiple of `multiple` tokens.

    The fill is a segment of its own without labels: it changes neither loss nor gradients.
    """
    lengths = [len(example.input_ids) for example in examples]
    useful = sum(lengths)
    if fill := -useful % multiple:
        lengths.append(fill)
    tokens = useful + fill
    cu_seqlens = np.cumsum([0, *lengths], dtype=np.int32)
    input_ids = np.zeros(tokens, np.int64)
    np.concatenate([example.input_ids for example in examples], out=input_ids[:useful])
    # Each position's target is the label of the next one; the last position of a segment has none.
    nexts = np.full(tokens + 1, IGNORED, np.int64)
    np.concatenate([example.labels for example in examples], out=nexts[:useful])
    nexts = nexts[1:]
    nexts[cu_seqlens[1:] - 1] = IGNORED
    label_positions = np.flatnonzero(nexts != IGNORED)
    position_ids = np.arange(tokens) - np.repeat(cu_seqlens[:-1], lengths)
    return PackedBatch(
        _end_to_end([input_ids, position_ids, label_positions, nexts[label_positions], cu_seqlens]),
        tuple(lengths),
        len(label_positions),
        useful,
    )


def _aligned(count: int) -> int:
    return -(-count // ALIGNMENT) * ALIGNMENT


def _end_to_end(arrays: Sequence[NDArray[np.integer]]) -> Tensor:
    """Each array's bytes from an aligned place on, as int64."""
    places = np.cumsum([0, *(_aligned(-(-array.nbytes // 8)) for array in arrays)])
    numbers = np.zeros(places[-1], np.int64)
    for place, array in zip(places, arrays, strict=False):
        numbers[place:].view(array.dtype)[: array.size] = array
    return torch.from_numpy(numbers)  # pyright: ignore[reportUnknownMemberType]
