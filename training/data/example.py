"""One training example, as the data layer makes it and every engine takes it."""

from __future__ import annotations

from typing import NamedTuple

IGNORED = -100
"""The label of a token that carries no loss."""


class Example(NamedTuple):
    """One sequence to train on; `labels[i]` is `input_ids[i]`, or -100 where no loss is taken."""

    input_ids: list[int]
    labels: list[int]
