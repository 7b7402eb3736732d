"""What rank 0 tells the other ranks to do next."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class Order(IntEnum):
    """The number stands in the message."""

    LOAD = 1
    """The model of the plan that is the text."""
    TRAIN = 2
    """A share of an optimizer step: its number, and most tokens at once."""
    EVALUATE = 3
    """A share of the held-out examples: most tokens at once."""
    END = 4
    PASS = 5
    """A forward pass of rank 0 alone, for which the others give their shards of the weights."""
    MEASURE = 6
    """Their peak memory."""


class Told(NamedTuple):
    """An order with its numbers, or its text."""

    order: Order
    first: int
    second: int
    text: str
