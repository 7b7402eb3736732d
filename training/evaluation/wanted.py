"""What an evaluation measures: the metrics that are asked for, or that the rows allow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..config.specs import EvaluateSpec
from ..errors import InputError
from .encoded import EncodedRow
from .rows import EvaluationRow

ANSWERS = ("exact_match", "contains", "f1", "regex")
"""Metrics of generated answers."""
LEAST_TOKENS, MOST_TOKENS = 64, 512
"""Of an answer, if max_new_tokens is not given."""

Sides = Sequence[Sequence[EncodedRow]]
"""The rows in the tokens of each model."""


@dataclass(frozen=True)
class Wanted:
    """What is measured of each model.

    Args:
        metrics: the first gives the verdict.
        asked: indices of the rows whose question is answered.
        chosen: indices of the rows whose choices are compared.
        max_new_tokens: of each answer.
    """

    metrics: Sequence[str]
    asked: Sequence[int]
    chosen: Sequence[int]
    max_new_tokens: int

    @property
    def losses(self) -> bool:
        return "loss" in self.metrics

    @property
    def parts(self) -> int:
        """Measurements of a model, for progress."""
        return self.losses + bool(self.asked) + bool(self.chosen)


def wanted_of(spec: EvaluateSpec, rows: Sequence[EvaluationRow], sides: Sides) -> Wanted:
    """What the request wants of these rows.

    Raises:
        InputError: a metric needs other rows.
    """
    chosen, asked = _chosen(rows, sides), _asked(rows, sides)
    # Answers to choices are only generated on request: likelihoods say more, and cost less.
    plain = [place for place in asked if not rows[place].choices]
    metrics = list(dict.fromkeys(spec.metrics or _default(spec, bool(chosen), bool(plain))))
    for metric in metrics:
        _require(metric, "choices" if metric == "multiple_choice" else "a question", chosen, asked)
    on_request = spec.metrics is not None or spec.pattern is not None
    answered = (asked if on_request else plain) if any(metric in ANSWERS for metric in metrics) else []
    return Wanted(
        metrics,
        answered,
        chosen if "multiple_choice" in metrics else [],
        spec.max_new_tokens or _answer_tokens(answered, sides),
    )


def _default(spec: EvaluateSpec, choices: bool, questions: bool) -> list[str]:
    return [
        *(["regex"] if spec.pattern else []),
        *(["multiple_choice"] if choices else []),
        "loss",
        *(["exact_match", "contains", "f1"] if questions else []),
    ]


def _require(metric: str, what: str, chosen: Sequence[int], asked: Sequence[int]) -> None:
    if metric != "loss" and not (chosen if metric == "multiple_choice" else asked):
        raise InputError(f"metrics: {metric} needs rows with {what} and the right answer.")


def _asked(rows: Sequence[EvaluationRow], sides: Sides) -> list[int]:
    """The rows with a question and an answer in text."""
    return [
        place
        for place, row in enumerate(rows)
        if row.answer.strip() and all(side[place].prompt for side in sides)
    ]


def _chosen(rows: Sequence[EvaluationRow], sides: Sides) -> list[int]:
    """The multiple-choice questions."""
    return [
        place for place, row in enumerate(rows) if row.choices and all(side[place].choices for side in sides)
    ]


def _answer_tokens(asked: Sequence[int], sides: Sides) -> int:
    """As many tokens as the longest right answer has, and half as many more."""
    longest = max((side[place].answer_tokens for side in sides for place in asked), default=0)
    return min(MOST_TOKENS, max(LEAST_TOKENS, longest * 3 // 2))
