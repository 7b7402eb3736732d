"""How many tokens a run puts through the model at a time, from the lengths of its examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

from .graphs import MOST_GRAPHS, ROW_MULTIPLE, graph_key
from .step_order import StepOrder, first_fit_decreasing

SIMULATED = 8192
"""Examples whose steps are packed to find the largest; more cost time and change little."""
FILL = 64
"""A micro-batch on a GPU is filled up to a multiple of so many tokens."""


class MicroBatch(NamedTuple):
    """Tokens that go through the model at once, and how many of them have a loss (None: maybe all)."""

    tokens: int
    labels: int | None


class RunBatches:
    """The batches of a training.

    Args:
        lengths: of the training examples in tokens, all of them or a sample; None: not known.
        examples: in an optimizer step, accumulation counted.
        held_out: examples that are evaluated.
        trained_share: of the tokens with a loss.
        padded: whether examples are padded to the longest one, as TRL and Unsloth do.
        steps: of the run; None: at least an epoch.
        multiple: what micro-batches are filled up to.
    """

    def __init__(
        self,
        lengths: Sequence[int] | None,
        *,
        examples: int,
        seed: int = 42,
        shuffle: bool = True,
        held_out: int = 0,
        trained_share: float | None = None,
        padded: bool = False,
        steps: int | None = None,
        multiple: int = FILL,
    ) -> None:
        self._lengths = lengths or None
        self._examples, self._held_out = examples, held_out
        self.trained_share = trained_share
        self._order = (seed, shuffle)
        self._padded = padded
        self._most = SIMULATED if steps is None else steps
        self._multiple = multiple
        self._packed: dict[int, list[list[int]]] = {}

    @property
    def known(self) -> bool:
        return self._lengths is not None

    def largest(self, capacity: int) -> MicroBatch:
        """The largest that a training step puts through the model, with micro-batches of this limit."""
        if self._lengths is None:
            return MicroBatch(_filled(capacity, self._multiple), None)
        if self._padded:
            return self._with_labels(max(max(step) * len(step) for step in self._steps))
        longest = max(self._lengths) if self._most >= SIMULATED else 0  # it may come in a later step
        return self._with_labels(max(longest, *map(sum, self._parts(capacity))))

    def evaluated(self, capacity: int) -> MicroBatch:
        """The largest of an evaluation, which packs all held-out examples."""
        if self._lengths is None or not self._held_out:
            return MicroBatch(_filled(capacity, self._multiple) if self._held_out else 0, None)
        longest = max(self._lengths)
        return self._with_labels(min(max(capacity, longest), self._held_out * longest))

    def micro_batches(self, capacity: int) -> float:
        """In an optimizer step, on the mean."""
        if self._lengths is None:
            return 1.0
        return len(self._parts(capacity)) / len(self._steps)

    def graph_tokens(self, capacity: int) -> int:
        """Tokens of all CUDA graphs of the run: one for each shape of batch that comes twice."""
        if self._lengths is None:
            return MOST_GRAPHS // 2 * capacity // 2
        shapes = Counter(
            graph_key(_filled(sum(part), ROW_MULTIPLE), len(part), max(part))
            for part in self._parts(capacity)
        )
        twice = [key.tokens for key, count in shapes.items() if count > 1]
        return sum(twice[:MOST_GRAPHS])

    @cached_property
    def mean(self) -> float | None:
        """Tokens of an example."""
        return None if self._lengths is None else sum(self._lengths) / len(self._lengths)

    @cached_property
    def seen_before(self) -> float | None:
        """Tokens that a token attends to, on the mean: half of its example."""
        if self._lengths is None:
            return None
        return sum(length * length for length in self._lengths) / sum(self._lengths) / 2

    @cached_property
    def _steps(self) -> list[list[int]]:
        """The lengths in each of the first steps."""
        assert self._lengths is not None
        seed, shuffle = self._order
        order = StepOrder(self._lengths, seed=seed, batch_size=self._examples, shuffle=shuffle)
        count = max(1, min(order.steps_per_epoch, SIMULATED // self._examples, self._most))
        return [[self._lengths[i] for i in order.examples(step)] for step in range(count)]

    def _parts(self, capacity: int) -> list[list[int]]:
        """The lengths in each micro-batch of the first steps."""
        if capacity not in self._packed:
            self._packed[capacity] = [
                [step[i] for i in items]
                for step in self._steps
                for items in first_fit_decreasing(step, capacity)
            ]
        return self._packed[capacity]

    def _with_labels(self, tokens: int) -> MicroBatch:
        return MicroBatch(
            _filled(tokens, self._multiple),
            None if self.trained_share is None else round(self.trained_share * tokens),
        )


def _filled(tokens: int, multiple: int) -> int:
    return -(-tokens // multiple) * multiple
