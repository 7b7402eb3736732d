"""The micro-batches of each optimizer step; on CUDA the next step's are made while this one runs."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from ...planning.step_order import StepOrder, even_shares, micro_batches
from ..plan import Example
from .batch import PackedBatch, packed_batch


@dataclass(frozen=True)
class StepBatch:
    """A rank's examples of one optimizer step, in parts that go through the model one after the other."""

    parts: tuple[PackedBatch, ...]

    @property
    def tokens(self) -> int:
        return sum(part.useful_tokens for part in self.parts)

    @property
    def label_tokens(self) -> int:
        return sum(part.label_tokens for part in self.parts)

    @property
    def largest_part(self) -> PackedBatch:
        return max(self.parts, key=lambda part: part.useful_tokens)

    @property
    def largest(self) -> tuple[int, int]:
        """Tokens and examples of the largest part; none of a share that is empty."""
        if not self.parts:
            return 0, 0
        return self.largest_part.useful_tokens, self.largest_part.examples


def in_parts(
    examples: Sequence[Example], budget: int, multiple: int, pinned: bool, border: int | None
) -> StepBatch:
    """`examples` packed into parts of at most `budget` tokens; see `micro_batches`."""
    lengths = [len(example.input_ids) for example in examples]
    groups = ([examples[i] for i in items] for items in micro_batches(lengths, budget, border))
    parts = (packed_batch(group, multiple=multiple) for group in groups)
    return StepBatch(tuple(part.pinned() if pinned else part for part in parts))


class Prefetcher:
    """Step batches by number. Change `budget` at any time: what was prepared with another is made anew.

    Args:
        budget: most tokens of a part.
        multiple: parts are filled up to a multiple of this many tokens.
        pinned: put them into page-locked memory, from which copies to the device do not wait.
        ahead: make the next step's in a thread while this one runs.
        rank, size: of the processes that share each step.
        border: as for `micro_batches`.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        order: StepOrder,
        *,
        budget: int,
        multiple: int,
        pinned: bool,
        ahead: bool,
        border: int | None = None,
        rank: int = 0,
        size: int = 1,
    ) -> None:
        self.examples = examples
        self.order = order
        self.budget = budget
        self.multiple = multiple
        self.pinned = pinned
        self.border = border
        self.rank, self.size = rank, size
        self._ahead = ThreadPoolExecutor(1, "prefetch") if ahead else None
        self._prepared: dict[tuple[int, int], Future[StepBatch]] = {}

    def step(self, step: int) -> StepBatch:
        """The batch of optimizer step `step`, counted from 0; prepares the next one aside."""
        if self._ahead is None:
            return self._made(step, self.budget)
        ready = self._prepared.get((step, self.budget))
        self._prepared = {}
        batch = self._made(step, self.budget) if ready is None else ready.result()
        following = step + 1, self.budget
        self._prepared[following] = self._ahead.submit(self._made, *following)
        return batch

    def close(self) -> None:
        if self._ahead is not None:
            self._ahead.shutdown(cancel_futures=True)

    def _made(self, step: int, budget: int) -> StepBatch:
        indices = self.order.examples(step)
        mine = even_shares([self.order.lengths[i] for i in indices], self.size)[self.rank]
        examples = [self.examples[indices[i]] for i in mine]
        return in_parts(examples, budget, self.multiple, self.pinned, self.border)
