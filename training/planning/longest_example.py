"""How long the examples of a training are: the longest goes through the model whole, so it must fit."""

from __future__ import annotations

from typing import NamedTuple

from ..config.specs import TrainingSpec


class Longest(NamedTuple):
    """How long the longest example of a training is, or may be.

    Args:
        tokens: of the example.
        how: which tokens these are, as part of a sentence.
    """

    tokens: int
    how: str


SHORT = Longest(64, "however short the rows are")
"""Fewer make no difference: so many are the least that a GPU is given at a time."""


def longest_allowed(spec: TrainingSpec) -> Longest:
    """Of rows whose lengths are not known."""
    return Longest(spec.data.max_seq_length, "max_seq_length, as the lengths of the rows are not known")


def longest_found(tokens: int) -> Longest:
    """Of rows whose tokens are counted."""
    return Longest(tokens, "those of the longest row that was counted")


def with_rows(spec: TrainingSpec, longest: Longest) -> TrainingSpec:
    """The same training of examples that are no longer than the longest."""
    tokens = min(spec.data.max_seq_length, longest.tokens)
    return spec.model_copy(update={"data": spec.data.model_copy(update={"max_seq_length": tokens})})
