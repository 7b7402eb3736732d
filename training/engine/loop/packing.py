"""Which examples make up each optimizer step, and how a step is split into micro-batches.

Everything is a function of lengths and seed, so a resumed run needs only the number of its step. The order
of the examples does not depend on how they are packed. No example is ever cut or padded.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from functools import cached_property

from ...config.results import PackingStatistics
from ..plan import Data, Plan

WINDOW = 1024
"""Examples among which the ones for a step of given tokens are chosen: more fill better, fewer are nearer to
random batches."""


def first_fit_decreasing(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices in bins of at most `capacity` tokens: longest first, each into the first bin with room.

    Uses at most 11/9 of the fewest bins possible, plus one (Dósa 2007). An item longer than `capacity` gets a
    bin of its own. Bins keep the items' order.
    """
    bins: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[index]
        place = next((b for b, free in enumerate(room) if length <= free), None)
        if place is None:
            bins.append([index])
            room.append(capacity - length)
        else:
            bins[place].append(index)
            room[place] -= length
    return sorted(sorted(items) for items in bins)


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


def step_order(plan: Plan, lengths: Sequence[int]) -> StepOrder:
    """The order of a plan's steps; accumulation counts towards a step's examples."""
    return StepOrder(
        lengths,
        seed=plan.training.seed,
        batch_size=plan.batch_size * plan.training.gradient_accumulation_steps,
        tokens_per_step=plan.tokens_per_step,
        shuffle=plan.data.order == "shuffled",
    )


def is_worth_evaluating_before(data: Data, order: StepOrder, steps: int) -> bool:
    """Whether evaluating the held-out examples takes at most about a tenth of the time of training.

    A token costs a third of what it costs to train on it.
    """
    held_out = sum(len(example.input_ids) for example in data.held_out)
    trained = sum(order.lengths) * steps / order.steps_per_epoch
    return 0 < held_out <= trained / 3


def total_steps(plan: Plan, order: StepOrder) -> int:
    """The optimizer steps of a run: `steps`, or `epochs` times those of an epoch, rounded up."""
    return plan.training.steps or math.ceil(plan.epochs * order.steps_per_epoch)


def statistics(order: StepOrder, budget: int) -> PackingStatistics:
    """How the first epoch of `order` is packed into micro-batches of at most `budget` tokens."""
    micro_batches = 0
    padded = 0
    for step in range(order.steps_per_epoch):
        lengths = [order.lengths[i] for i in order.examples(step)]
        micro_batches += len(first_fit_decreasing(lengths, budget))
        padded += max(lengths) * len(lengths)
    tokens = sum(order.lengths)
    return PackingStatistics(
        examples=len(order.lengths),
        tokens=tokens,
        longest=max(order.lengths),
        steps_per_epoch=order.steps_per_epoch,
        micro_batches_per_epoch=micro_batches,
        fill=tokens / (micro_batches * budget),
        padding_avoided=1 - tokens / padded,
    )
