"""The rows of an evaluation as a model's tokens: what is measured of them, and what is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..config.specs import DataGroup
from ..data.formats.messages import Completion, Recognised
from ..data.readers.rows import RowError
from ..data.tokens.encode import Encoded, Encoder, end_tokens
from ..data.tokens.example import IGNORED, Example
from ..models.token_limits import TokenLimits
from .other_questions import last_answer
from .rows import EvaluationRow

WHITE_SPACE = (" ", "\n", "\t")


@dataclass(frozen=True)
class EncodedRow:
    """A row in one model's tokens.

    Args:
        examples: as in training; several of a long text.
        prompt: the tokens before the last answer; empty for a text.
        answer_tokens: number of tokens of that answer.
        choices: of each answer to a multiple-choice question, the question and the answer, whose tokens alone
            carry loss; empty for other rows, and where one is truncated.
        reason: the kind of finding for which the row cannot be measured; empty if it can.
    """

    examples: list[Example] = field(default_factory=list[Example])
    prompt: list[int] = field(default_factory=list[int])
    answer_tokens: int = 0
    choices: list[Example] = field(default_factory=list[Example])
    reason: str = ""

    @property
    def labels(self) -> list[list[int]]:
        """The tokens that carry loss."""
        return [[label for label in one.labels if label != IGNORED] for one in self.examples]


class RowEncoder:
    """Encodes rows with one tokenizer, as a training with these settings does.

    Raises:
        ChatTemplateError: the tokenizer allows no exact loss mask.
    """

    def __init__(self, tokenizer: Any, data: DataGroup, limits: TokenLimits) -> None:
        self._encoder = Encoder(tokenizer, data, limits)
        self._last = Encoder(tokenizer, data.model_copy(update={"train_on": "last"}), limits)
        self._chat = bool(tokenizer.chat_template)
        self._ends = set(end_tokens(tokenizer))

    @property
    def added_tokens(self) -> frozenset[str]:
        return self._encoder.added_tokens

    def encoded(self, row: EvaluationRow) -> EncodedRow:
        try:
            whole = _encoded(self._encoder, row.row)
            if whole.refusal:
                return EncodedRow(reason=whole.refusal)
            asked = last_answer(_encoded(self._last, row.row).examples[0])
            choices = self._choices(row)
        except RowError as error:
            return EncodedRow(reason=error.kind)
        if asked is None:
            return EncodedRow(whole.examples, choices=choices)
        return EncodedRow(whole.examples, asked.prompt, len(asked.answer), choices)

    def _choices(self, row: EvaluationRow) -> list[Example]:
        found: list[Example] = []
        for text in row.choices:
            assert isinstance(row.row, Completion)
            one = _encoded(self._last, replace(row.row, completion=self._after(row.row.prompt, text)))
            answered = last_answer(one.examples[0]) if one.examples else None
            if answered is None or one.refusal or one.kept < one.length:
                return []
            answer = answered.answer
            while answer and answer[-1] in self._ends:
                answer = answer[:-1]
            found.append(answered._replace(answer=answer).example())
        return found

    def _after(self, prompt: str, text: str) -> str:
        """The answer as it follows the prompt: without a chat template, a space is between them."""
        if self._chat or prompt.endswith(WHITE_SPACE) or text.startswith(WHITE_SPACE):
            return text
        return f" {text}"


def _encoded(encoder: Encoder, row: Recognised) -> Encoded:
    return encoder.tokenise([encoder.render(row)])[0]


def equal_labels(one: Sequence[EncodedRow], other: Sequence[EncodedRow]) -> bool:
    """Whether two models predict the same tokens: only then their losses per token can be compared."""
    return all(a.labels == b.labels for a, b in zip(one, other, strict=True))
