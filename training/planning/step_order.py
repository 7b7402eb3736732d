"""Which examples make up each optimizer step, and how a step is split into micro-batches.

Everything is a function of lengths and seed, so a resumed run needs only the number of its step. The order
of the examples does not depend on how they are packed. No example is ever cut or padded.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from functools import cached_property

WINDOW = 1024
"""Examples that are packed together. More fill the steps of given tokens better, and bring them further from
random batches; the time to pack grows with their square."""


def first_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices in bins of at most `capacity` tokens: longest first, each into the first bin with room.

    Uses at most 11/9 of the fewest bins possible, plus one (Dósa 2007). An item longer than `capacity` gets a
    bin of its own. Bins keep the items' order.
    """
    bins: list[list[int]] = []
    room: list[int] = []
    for index in _longest_first(lengths):
        length = lengths[index]
        place = next((b for b, free in enumerate(room) if length <= free), None)
        if place is None:
            bins.append([index])
            room.append(capacity - length)
        else:
            bins[place].append(index)
            room[place] -= length
    return sorted(sorted(items) for items in bins)


def even_shares(lengths: Sequence[int], count: int) -> list[list[int]]:
    """Indices in `count` shares of about equal tokens.

    The longest first, each to the share with the fewest tokens so far: the largest share is below 4/3 of what
    it must be (Graham 1969). Shares keep the items' order; some are empty where there are fewer items.
    """
    shares: list[list[int]] = [[] for _ in range(count)]
    fewest = [(0, number) for number in range(count)]  # tokens and share, a heap
    for index in _longest_first(lengths):
        tokens, number = fewest[0]
        heapq.heapreplace(fewest, (tokens + lengths[index], number))
        shares[number].append(index)
    return [sorted(items) for items in shares]


def micro_batches(lengths: Sequence[int], capacity: int, border: int | None = None) -> list[list[int]]:
    """Indices in even micro-batches of at most `capacity` tokens; a longer item is alone.

    Args:
        border: items longer than this are in other micro-batches than the rest; None: all may be together.
    """
    return [
        [side[i] for i in items]
        for start in range(0, len(lengths), WINDOW)
        for side in _sides(lengths, range(start, min(start + WINDOW, len(lengths))), border)
        for items in _even_bins([lengths[i] for i in side], capacity)
    ]


def _longest_first(lengths: Sequence[int]) -> list[int]:
    return sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))


def _sides(lengths: Sequence[int], window: Sequence[int], border: int | None) -> list[list[int]]:
    """The items up to `border`, and those that are longer."""
    if border is None:
        return [[*window]]
    return [[i for i in window if (lengths[i] > border) is long] for long in (False, True)]


def _even_bins(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """As many bins as first-fit-decreasing needs, but evenly filled where the largest are smaller then.

    The host launches as many kernels for a small micro-batch as for a large one. Bins are compared by their
    tokens, the largest first: so even ones stay within the capacity that first-fit-decreasing kept to.
    """
    packed = first_fit_decreasing(lengths, capacity)
    if len(packed) < 2:
        return packed
    even = sorted(even_shares(lengths, len(packed)))

    def tokens(bins: list[list[int]]) -> list[int]:
        return sorted((sum(lengths[i] for i in items) for items in bins), reverse=True)

    return min(even, packed, key=tokens)


class StepOrder:
    """The examples of each optimizer step, in an order drawn anew for each epoch from the seed, or as given.

    A step takes `batch_size` examples (fewer at the end of an epoch), or, with `tokens_per_step`, as many
    whole examples of a window as fit.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        seed: int,
        batch_size: int,
        tokens_per_step: int | None = None,
        shuffle: bool = True,
    ) -> None:
        self.lengths = lengths
        self.seed = seed
        self.batch_size = batch_size
        self.tokens_per_step = tokens_per_step
        self.shuffle = shuffle
        self._epochs: dict[int, list[list[int]]] = {}

    @cached_property
    def steps_per_epoch(self) -> int:
        """Of the first epoch; with `tokens_per_step` later ones may differ by a few."""
        return len(self._steps_of_epoch(0))

    def examples(self, step: int) -> list[int]:
        """The indices of the examples of optimizer step `step`, counted from 0."""
        if self.tokens_per_step is None:
            epoch, position = divmod(step, self.steps_per_epoch)
            return self._steps_of_epoch(epoch)[position]
        epoch = 0
        while step >= (count := len(self._steps_of_epoch(epoch))):
            step -= count
            epoch += 1
        return self._steps_of_epoch(epoch)[step]

    def _steps_of_epoch(self, epoch: int) -> list[list[int]]:
        steps = self._epochs.get(epoch)
        if steps is None:
            order = list(range(len(self.lengths)))
            if self.shuffle:
                random.Random(f"order {self.seed} {epoch}").shuffle(order)
            steps = self._epochs[epoch] = self._grouped(order, epoch)
            if self.tokens_per_step is None:
                self._epochs.pop(epoch - 1, None)
        return steps

    def _grouped(self, order: list[int], epoch: int) -> list[list[int]]:
        if self.tokens_per_step is None:
            return [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        steps: list[list[int]] = []
        for start in range(0, len(order), WINDOW):
            window = order[start : start + WINDOW]
            bins = first_fit_decreasing([self.lengths[i] for i in window], self.tokens_per_step)
            steps.extend([window[i] for i in items] for items in bins)
        random.Random(f"steps {self.seed} {epoch}").shuffle(steps)
        return steps
