"""Answers after the questions of other rows: what a model knows is lost there, the form of answers is not.

A model that has only learnt how answers look, or was trained on answers of other questions, gives an answer
the same probability after any question.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from ..data.tokens.example import IGNORED, Example

OTHERS = 2
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


class Exchanged(NamedTuple):
    """An answer after its own question and after others.

    Args:
        row: the index of its row.
        own: the row, with this answer as the only one that carries loss.
        others: the answer after `OTHERS` other rows' questions.
    """

    row: int
    own: Example
    others: list[Example]


def exchanged(rows: Sequence[Example]) -> list[Exchanged]:
    """The last answer of each row after other questions.

    A row is left out if it has no question, or too few others have another question and another answer.
    """
    answered = [(row, answer) for row, example in enumerate(rows) if (answer := last_answer(example))]
    found: list[Exchanged] = []
    for index, (row, own) in enumerate(answered):
        around = (*answered[index + 1 :], *answered[:index])
        others = (one for _, one in around if one.answer != own.answer and one.prompt != own.prompt)
        examples = [Answered(one.prompt, own.answer).example() for one in islice(others, OTHERS)]
        if len(examples) == OTHERS:
            found.append(Exchanged(row, own.example(), examples))
    return found
