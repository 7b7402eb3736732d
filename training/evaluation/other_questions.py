"""Answers after the questions of other rows: what a model knows is lost there, the form of answers is not.

A model that has only learnt how answers look, or was trained on answers of other questions, gives an answer
the same probability after any question.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from ..data.tokens.example import IGNORED, Example

OTHERS = 3
"""Other questions for each answer: their mean varies less than one."""


class Answered(NamedTuple):
    """An example whose last trained tokens are its only ones.

    Args:
        prompt: the tokens before them.
        answer: the tokens that carry loss, to the end of the turn.
    """

    prompt: list[int]
    answer: list[int]

    def example(self) -> Example:
        return Example(self.prompt + self.answer, [IGNORED] * len(self.prompt) + self.answer)


def last_answer(example: Example) -> Answered | None:
    """The last answer of an example and what precedes it; None for a text without a question."""
    labels = example.labels
    end = next((at for at in range(len(labels), 0, -1) if labels[at - 1] != IGNORED), 0)
    start = next((at for at in range(end, 0, -1) if labels[at - 1] == IGNORED), 0)
    if start <= 1:  # a text, or a later part of one, which begins with the last token of the part before
        return None
    return Answered(list(example.input_ids[:start]), list(example.input_ids[start:end]))


def exchanged(rows: Sequence[Answered]) -> list[tuple[Example, list[Example]]]:
    """For each row its own example, and its answer after `OTHERS` other rows' questions.

    A row is left out if there are fewer with another question and another answer.
    """
    pairs: list[tuple[Example, list[Example]]] = []
    for index, row in enumerate(rows):
        around = (*rows[index + 1 :], *rows[:index])
        others = (one for one in around if one.answer != row.answer and one.prompt != row.prompt)
        found = [Answered(one.prompt, row.answer).example() for one in islice(others, OTHERS)]
        if len(found) == OTHERS:
            pairs.append((row.example(), found))
    return pairs
