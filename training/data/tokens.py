"""From conversations to `input_ids` and `labels`, with loss on the assistant's turns only.

The chat template is rendered turn by turn; what a rendering has more than the one before it belongs to
that turn. So the mask needs no `{% generation %}` in the template.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..config import DataGroup
from ..errors import DatasetError, DatasetValidationError, TrainingAbortedError
from .rows import LOOK_EVERY, Message, Row

IGNORED = -100
"""The label of a token that carries no loss."""


@dataclass(frozen=True)
class Example:
    """One training example: (tokens,) ids, and labels of the same length, -100 where there is no loss."""

    input_ids: list[int]
    labels: list[int]

    @property
    def trained_tokens(self) -> int:
        return sum(label != IGNORED for label in self.labels)


@dataclass(frozen=True)
class TokenisedData:
    examples: list[Example]
    truncated: int  # examples that were longer than max_seq_length

    @property
    def tokens(self) -> int:
        return sum(len(example.input_ids) for example in self.examples)

    @property
    def trained_tokens(self) -> int:
        return sum(example.trained_tokens for example in self.examples)


def tokenise(
    rows: Sequence[Row],
    data: DataGroup,
    tokenizer: Any,
    report: Callable[[int], None] = lambda _done: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TokenisedData:
    """Tokenise every row, cut to `data.max_seq_length`.

    Raises:
        DatasetValidationError: a row has no token to learn from, or the template refuses it.
        DatasetError: the model has no chat template, and the rows are conversations.
    """
    examples: list[Example] = []
    truncated = 0
    for number, row in enumerate(rows):
        if number % LOOK_EVERY == 0:
            report(number)
            if should_stop():
                raise TrainingAbortedError("Cancelled while preparing the data.")
        example = (
            _text_example(row, tokenizer) if row.text is not None else _chat_example(row, data, tokenizer)
        )
        if len(example.input_ids) > data.max_seq_length:
            truncated += 1
            example = Example(example.input_ids[: data.max_seq_length], example.labels[: data.max_seq_length])
        if example.trained_tokens == 0:
            raise DatasetValidationError(
                f"line {row.line}: no token of this row carries loss after cutting it to "
                f"{data.max_seq_length} tokens.",
                hint="Raise max_seq_length, or shorten the row's prompt.",
            )
        examples.append(example)
    return TokenisedData(examples, truncated)


def _text_example(row: Row, tokenizer: Any) -> Example:
    ids: list[int] = tokenizer(row.text)["input_ids"]
    if tokenizer.eos_token_id is not None and ids[-1:] != [tokenizer.eos_token_id]:
        ids = [*ids, tokenizer.eos_token_id]
    return Example(ids, list(ids))


def _chat_example(row: Row, data: DataGroup, tokenizer: Any) -> Example:
    if not tokenizer.chat_template:
        raise DatasetError(
            "The model has no chat template, and the rows are conversations.",
            hint='Use an instruct model, or rows of the form {"text": …}.',
        )
    text, spans = _rendered(row, tokenizer)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids: list[int] = encoded["input_ids"]
    if data.train_on == "all":
        return Example(ids, list(ids))
    labels = [
        token if any(start <= begin and end <= stop for start, stop in spans) and end > begin else IGNORED
        for token, (begin, end) in zip(ids, encoded["offset_mapping"], strict=True)
    ]
    return Example(ids, labels)


def _rendered(row: Row, tokenizer: Any) -> tuple[str, list[tuple[int, int]]]:
    """The whole conversation as the model sees it, and the characters that are the assistant's."""
    text = _render(row.messages, tokenizer, row.line)
    spans: list[tuple[int, int]] = []
    for index, message in enumerate(row.messages):
        if message.role != "assistant":
            continue
        before = _render(row.messages[:index], tokenizer, row.line, prompt=True)
        after = _render(row.messages[: index + 1], tokenizer, row.line)
        if not after.startswith(before) or not text.startswith(after):
            raise DatasetValidationError(
                f"line {row.line}: the model's chat template rewrites earlier turns, so it cannot be told "
                "which tokens are the assistant's.",
                hint='Train on all tokens (train_on="all"), or split the conversation into single turns.',
            )
        spans.append((len(before), len(after)))
    return text, spans


def _render(messages: Sequence[Message], tokenizer: Any, line: int, *, prompt: bool = False) -> str:
    turns = [{"role": message.role, "content": message.content} for message in messages]
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt))
    except Exception as error:  # templates raise whatever they like
        raise DatasetValidationError(
            f"line {line}: the model's chat template refuses this conversation ({error}).",
            hint="Check the order of roles; some templates take no system message.",
            cause=error,
        ) from error
