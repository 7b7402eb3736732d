"""For which models steps become CUDA graphs, and which batches share one."""

from __future__ import annotations

from typing import NamedTuple

LARGEST_MODEL = 3_000_000_000
"""Weights; above, kernels run longer than it takes to launch them."""
ROW_MULTIPLE = 256
"""Tokens; few different lengths mean few graphs, and the fill costs less than launching."""
MOST_GRAPHS = 96
LEAST_SEGMENTS = 8


class GraphKey(NamedTuple):
    """What all batches of one graph have in common. `segments` and `max_seqlen` are rounded up."""

    tokens: int
    segments: int
    max_seqlen: int


def graph_key(tokens: int, segments: int, longest: int) -> GraphKey:
    """The graph of a batch with so many tokens and examples."""
    return GraphKey(tokens, max(LEAST_SEGMENTS, _power_of_two(segments)), _power_of_two(longest))


def _power_of_two(number: int) -> int:
    """The smallest one that is not below `number`."""
    return 1 << (number - 1).bit_length()
