"""Examples laid end to end as one row of tokens, with the bounds between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor

from ..data.example import IGNORED, Example


@dataclass(frozen=True)
class Segments:
    """Where each example lies in the row: tokens attend within their segment only."""

    lengths: tuple[int, ...]
    bounds: Tensor  # (segments + 1,) int32, the cumulated lengths

    @property
    def longest(self) -> int:
        return max(self.lengths)


@dataclass(frozen=True)
class PackedBatch:
    """One micro-batch. `rows` are the positions whose next token is predicted, `targets` those tokens."""

    input_ids: Tensor  # (tokens,)
    position_ids: Tensor  # (tokens,)
    segments: Segments
    rows: Tensor  # (label_tokens,)
    targets: Tensor  # (label_tokens,)
    useful_tokens: int

    @property
    def examples(self) -> int:
        return len(self.segments.lengths) - (self.useful_tokens < self.input_ids.numel())

    @property
    def label_tokens(self) -> int:
        return self.rows.numel()

    def to(self, device: torch.device) -> PackedBatch:
        """The same on `device`; from pinned memory the copies do not wait."""
        if device.type == "cpu":
            return self

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        return PackedBatch(
            moved(self.input_ids),
            moved(self.position_ids),
            Segments(self.segments.lengths, moved(self.segments.bounds)),
            moved(self.rows),
            moved(self.targets),
            self.useful_tokens,
        )

    def pinned(self) -> PackedBatch:
        """The same in page-locked memory."""
        return replace(
            self,
            input_ids=self.input_ids.pin_memory(),
            position_ids=self.position_ids.pin_memory(),
            segments=replace(self.segments, bounds=self.segments.bounds.pin_memory()),
            rows=self.rows.pin_memory(),
            targets=self.targets.pin_memory(),
        )


def packed_batch(examples: Sequence[Example], *, multiple: int = 1) -> PackedBatch:
    """`examples` end to end, the row filled up to a multiple of `multiple` tokens.

    The fill is a segment of its own without labels: it changes neither loss nor gradients.
    """
    input_ids = [torch.as_tensor(example.input_ids, dtype=torch.long) for example in examples]
    labels = [torch.as_tensor(example.labels, dtype=torch.long) for example in examples]
    lengths = [len(ids) for ids in input_ids]
    useful = sum(lengths)
    fill = -useful % multiple
    if fill:
        input_ids.append(torch.zeros(fill, dtype=torch.long))
        labels.append(torch.full((fill,), IGNORED))
        lengths.append(fill)
    # Each position's target is the label of the next one; the last position of a segment has none.
    nexts = torch.cat([torch.cat([row[1:], row.new_full((1,), IGNORED)]) for row in labels])
    rows = (nexts != IGNORED).nonzero().flatten()
    return PackedBatch(
        input_ids=torch.cat(input_ids),
        position_ids=torch.cat([torch.arange(length) for length in lengths]),
        segments=Segments(tuple(lengths), torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)),
        rows=rows,
        targets=nexts[rows],
        useful_tokens=useful,
    )
