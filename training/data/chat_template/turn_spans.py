"""Which characters of a rendered conversation the assistant wrote.

Templates do as they like: they trim contents, drop thoughts from earlier turns, insert default system
messages, merge roles. So nothing is assumed of a template; it is asked, by rendering the conversation again
with an assistant's turn replaced by a number that occurs nowhere else. What stands before and after that
number does not depend on the turn, and must stand in the real rendering as well, character for character;
what lies between is the turn *as rendered*. Where that does not hold, the row or the template is refused.

    real       <|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\nHello!<|im_end|>\\n
    replaced   <|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\n703159<|im_end|>\\n
    trained                                                              Hello!<|im_end|>

A turn begins where the generation prompt ends (the model writes all that follows it, also a think block that
the template adds), and ends with its end-of-turn token (which the model must learn to write, or it never
stops).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from ...errors import ChatTemplateError
from ..formats.messages import Message
from ..readers.rows import RowError
from .template import ANOTHER_TEMPLATE, ChatTemplate
from .template_skeleton import Shape
from .turn_markers import QUESTIONS, probe_frame, shared_prefix


class Span(NamedTuple):
    """Characters `start` to `end` of a rendered conversation, written by message number `message`."""

    message: int
    start: int
    end: int


class TurnFinder:
    """Finds the assistant's turns in what a template renders.

    Raises:
        ChatTemplateError: the template allows no exact mask.
    """

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template
        self.frame = probe_frame(template)
        self._closing = self.frame.gap + self.frame.end
        self._verify()

    def spans(self, messages: Sequence[Message], tools: Any, turns: Sequence[int]) -> tuple[str, list[Span]]:
        """The rendered conversation and some of the assistant's turns in it.

        Args:
            turns: indices of assistant messages, ascending.

        Raises:
            RowError: the template refuses the conversation, or a turn's characters cannot be told exactly.
        """
        shaped = self._template.shaped(messages, tools)
        spans = self._between_pieces(*shaped, turns) if shaped else None
        if shaped and spans is not None:
            shape, shown = shaped
            return shape.text(shown), spans
        text = self._template.render(messages, tools)
        return text, [self._one(text, messages, tools, index) for index in turns]

    def _between_pieces(self, shape: Shape, shown: Sequence[str], turns: Sequence[int]) -> list[Span] | None:
        """The turns of a conversation whose shape is known, if each stands in the usual frame."""
        ends = [*accumulate(len(piece) + len(text) for piece, text in zip(shape.pieces, shown, strict=False))]
        spans: list[Span] = []
        for index in turns:
            before = shape.pieces[index]
            start = self.frame.start_in(before)
            if start is None or not shape.pieces[index + 1].startswith(self._closing):
                return None
            begin = ends[index] - len(shown[index])
            spans.append(Span(index, begin - (len(before) - start), ends[index] + len(self._closing)))
        return spans

    def _one(self, text: str, messages: Sequence[Message], tools: Any, index: int) -> Span:
        try:
            return self._by_replacing(text, messages, tools, index)
        except RowError as first:
            try:
                return self._by_prefixes(text, messages, tools, index)
            except RowError:
                raise first from None

    def _by_replacing(self, text: str, messages: Sequence[Message], tools: Any, index: int) -> Span:
        """The turn is all of the rendering that does not stay when the turn is replaced."""
        mark = number_not_in(text, index)
        replaced = [*messages[:index], {"role": "assistant", "content": mark}, *messages[index + 1 :]]
        pieces = split_at(self._template.render(replaced, tools), [mark])
        if pieces is None:
            raise _inexact(f"turn {index + 1} is not shown exactly once")
        before, after = pieces
        start = self._start(before, messages, tools, index)
        if not after.startswith(self._closing):
            raise _inexact(f"turn {index + 1} does not end with {self.frame.end}")
        after = after[len(self._closing) :]
        end = len(text) - len(after)
        if end < start or text[:start] != before[:start] or text[end:] != after:
            raise _inexact(f"the rendering of other turns depends on turn {index + 1}")
        return self._closed(Span(index, start, end), text)

    def _by_prefixes(self, text: str, messages: Sequence[Message], tools: Any, index: int) -> Span:
        """For templates that refuse the replaced turn: what the conversation up to the turn adds to it."""
        prompt = self._template.render(messages[:index], tools, add_generation_prompt=True)
        whole = self._template.render(messages[: index + 1], tools)
        end = whole.rfind(self.frame.end) + len(self.frame.end)
        if not text.startswith(prompt) or end <= len(prompt) or not text.startswith(whole[:end]):
            raise _inexact(f"turn {index + 1} is rendered otherwise within the conversation")
        return self._closed(Span(index, len(prompt), end), text)

    def _start(self, before: str, messages: Sequence[Message], tools: Any, index: int) -> int:
        """Where the generation prompt of a turn ends, in what stands before its content."""
        start = self.frame.start_in(before)
        if start is not None:
            return start
        prompt = self._template.render(messages[:index], tools, add_generation_prompt=True)
        start = shared_prefix(prompt, before)
        if before[start:] not in self.frame.leads:
            raise _inexact(f"where turn {index + 1} begins cannot be told")
        return start

    def _closed(self, span: Span, text: str) -> Span:
        """The span, if it ends with a control token: the usual one or, after a tool call, another."""
        if not any(text.endswith(token, span.start, span.end) for token in self._template.added_tokens):
            raise _inexact(f"turn {span.message + 1} does not end with a control token")
        return span

    def _verify(self) -> None:
        """Asks of the template, once, what must be true of every span.

        Raises:
            ChatTemplateError: a span does not hold its turn, or holds something of a user's.
        """
        answers = ("It is 100 degrees.", "  2862 degrees Celsius\n")
        messages: list[Message] = [
            {"role": "user", "content": QUESTIONS[0]},
            {"role": "assistant", "content": answers[0]},
            {"role": "user", "content": QUESTIONS[1]},
            {"role": "assistant", "content": answers[1]},
        ]
        try:
            text, spans = self.spans(messages, None, (1, 3))
        except RowError as error:
            raise ChatTemplateError(
                f"The loss mask of the model's chat template cannot be exact: {error.reason}.",
                hint=ANOTHER_TEMPLATE,
            ) from None
        for span, answer in zip(spans, answers, strict=True):
            shown = text[span.start : span.end]
            if answer.strip() not in shown or any(question in shown for question in QUESTIONS):
                raise ChatTemplateError(
                    f"The model's chat template mixes turns: {shown[:80]!r}.", hint=ANOTHER_TEMPLATE
                )


def number_not_in(text: str, seed: int) -> str:
    """Twelve digits that `text` does not hold. Digits survive trimming, JSON, escaping, change of case."""
    number = 703_159_264_801 + seed * 1_000_003
    while str(number) in text:
        number += 7
    return str(number)


def split_at(text: str, marks: list[str]) -> list[str] | None:
    """`text` cut at the marks, if each occurs once and in order."""
    pieces: list[str] = []
    for mark in marks:
        before, found, text = text.partition(mark)
        if not found or mark in text:
            return None
        pieces.append(before)
    return [*pieces, text]


def _inexact(reason: str) -> RowError:
    return RowError("mask_inexact", reason)
