"""How many questions of a task a model answers as its rows do."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from ..data.tokens.example import Example
from ..engine.loaded_model import StepModel
from .other_questions import Answered, last_answer
from .text_scores import exact_match

LONGEST = 32
"""Tokens of an answer that is compared: of longer ones, hardly any is ever equal."""
SPARE = 4
"""Tokens that an equal answer may have more than the longest right one; no answer is made longer."""


def answerable(examples: Sequence[Example], most: int) -> list[Answered]:
    """Questions with a short answer: at most `most`, from all of them in equal distances."""
    found = [one for one in map(last_answer, examples) if one is not None and len(one.answer) <= LONGEST]
    count = min(most, len(found))
    return [found[number * len(found) // count] for number in range(count)]


def share_of_right_answers(model: StepModel, tokenizer: Any, questions: Sequence[Answered]) -> float:
    """The share of the questions whose greedy answer equals the right one."""
    most = max(len(one.answer) for one in questions) + SPARE
    said = model.continuations([one.prompt for one in questions], tokenizer, most)
    right = [tokenizer.decode(one.answer, skip_special_tokens=True) for one in questions]
    return fmean(exact_match(one.text, other) for one, other in zip(said, right, strict=True))
