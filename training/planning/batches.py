"""How many tokens a run puts through the model at a time, from the lengths of its examples.

Its steps are split as the training loop does it, but for the border of a rotary scaling, which a config.json
alone does not tell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

from .graphs import MOST_GRAPHS, ROW_MULTIPLE, GraphKey, graph_key
from .step_order import StepOrder, even_shares, micro_batches

SIMULATED = 8192
"""Examples, repeats counted, whose steps are packed to find the largest; more cost time, change little."""
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
        steps: of the run, each of so many `examples`; None: at least an epoch.
        processes: that share each step.
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
        processes: int = 1,
        multiple: int = FILL,
    ) -> None:
        self._lengths = lengths or None
        self._examples, self._held_out = examples, held_out
        self.trained_share = trained_share
        self._order = (seed, shuffle)
        self._padded = padded
        self._run = steps
        self._processes, self._multiple = processes, multiple
        self._packed: dict[int, list[list[list[int]]]] = {}

    @property
    def longest(self) -> int | None:
        """Tokens of the longest training example."""
        return max(self._lengths) if self._lengths else None

    @property
    def known(self) -> bool:
        return self._lengths is not None

    def largest(self, capacity: int) -> MicroBatch:
        """The largest that a training step puts through the model, with micro-batches of this limit."""
        if self._lengths is None:
            return MicroBatch(_filled(capacity, self._multiple), None)
        if self._padded:
            return self._with_labels(max(max(step) * len(step) for step in self._steps))
        longest = max(self._lengths) if self._more else 0  # it may come in a later step
        parts = (part for process in self._parts(capacity) for part in process)
        return self._with_labels(max(longest, *map(sum, parts)))

    def evaluated(self, capacity: int) -> MicroBatch:
        """The largest of an evaluation, which packs all held-out examples."""
        if self._lengths is None or not self._held_out:
            return MicroBatch(_filled(capacity, self._multiple) if self._held_out else 0, None)
        longest = max(self._lengths)
        return self._with_labels(min(max(capacity, longest), self._held_out * longest))

    def micro_batches(self, capacity: int) -> float:
        """In an optimizer step, on the mean; those of all processes."""
        if self._lengths is None:
            return float(self._processes)
        return sum(map(len, self._parts(capacity))) / len(self._steps)

    def graph_tokens(self, capacity: int) -> int:
        """Tokens of all CUDA graphs of a process at most: one for each shape of batch that comes twice."""
        if self._lengths is None:
            return MOST_GRAPHS // 2 * capacity // 2
        shapes = map(_graph_shapes, self._parts(capacity))
        return max(sum([key.tokens for key, n in each.items() if n > 1][:MOST_GRAPHS]) for each in shapes)

    def before_graphs(self, capacity: int) -> int:
        """Micro-batches that are launched kernel by kernel: the first of each shape, and its graph's."""
        if self._lengths is None:
            return 0
        return max(sum(min(n, 2) for n in _graph_shapes(parts).values()) for parts in self._parts(capacity))

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
        run = order.steps_per_epoch if self._run is None else self._run
        count = max(1, min(SIMULATED // self._examples, run))
        return [[self._lengths[i] for i in order.examples(step)] for step in range(count)]

    @property
    def _more(self) -> bool:
        """Whether the run may have more steps than the first ones."""
        return self._run is None or self._run > len(self._steps)

    def _parts(self, capacity: int) -> list[list[list[int]]]:
        """By process, the lengths in each of its micro-batches of the first steps."""
        if capacity not in self._packed:
            parts: list[list[list[int]]] = [[] for _ in range(self._processes)]
            for step in self._steps:
                for process, share in zip(parts, even_shares(step, self._processes), strict=True):
                    lengths = [step[i] for i in share]
                    process += [[lengths[i] for i in items] for items in micro_batches(lengths, capacity)]
            self._packed[capacity] = parts
        return self._packed[capacity]

    def _with_labels(self, tokens: int) -> MicroBatch:
        return MicroBatch(
            _filled(tokens, self._multiple),
            None if self.trained_share is None else round(self.trained_share * tokens),
        )


def _graph_shapes(parts: Sequence[Sequence[int]]) -> Counter[GraphKey]:
    return Counter(graph_key(_filled(sum(part), ROW_MULTIPLE), len(part), max(part)) for part in parts)


def _filled(tokens: int, multiple: int) -> int:
    return -(-tokens // multiple) * multiple
