"""Which characters of a rendered conversation the assistant wrote.

Templates differ: they trim contents, drop thoughts from earlier turns, insert default system messages, merge
roles. So nothing is assumed about a template. The conversation is rendered a second time, with one assistant
turn replaced by a number that occurs nowhere else. The text before and after that number does not depend on
the turn, and must be identical in the real rendering; the text between them is the turn *as rendered*. If
this does not hold, the row or the template is refused.

    real       <|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\nHello!<|im_end|>\\n
    replaced   <|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\n703159<|im_end|>\\n
    trained                                                              Hello!<|im_end|>

A turn starts where the generation prompt ends: the model generates everything after it, including a think
block that the template adds. It ends with its end-of-turn token, which the model must learn to generate, or
it never stops.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from ...errors import ChatTemplateError
from ...untrusted import quoted
from ..formats.messages import Message
from ..readers.rows import RowError
from .template import ANOTHER_TEMPLATE, ChatTemplate
from .template_skeleton import Skeleton
from .turn_markers import PROBE_QUESTIONS, REFUSED, probe_turn_markers, shared_prefix


class Span(NamedTuple):
    """Characters `start` to `end` of a rendered conversation, written by message number `message`."""

    message: int
    start: int
    end: int


class TurnFinder:
    """Finds the assistant turns in rendered conversations.

    Raises:
        ChatTemplateError: the template allows no exact mask.
    """

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template
        self.markers = probe_turn_markers(template)
        self._closing = self.markers.gap + self.markers.end
        self._verify()

    def spans(self, messages: Sequence[Message], tools: Any, turns: Sequence[int]) -> tuple[str, list[Span]]:
        """The rendered conversation and the spans of some of its assistant turns.

        Args:
            turns: indices of assistant messages, ascending.

        Raises:
            RowError: the template refuses the conversation, or the exact characters of a turn are unknown.
        """
        # The skeleton first: it needs no rendering, while each turn below renders the conversation again.
        fitting = self._template.skeleton_for(messages, tools)
        spans = self._between_pieces(*fitting, turns) if fitting else None
        if fitting and spans is not None:
            skeleton, rendered = fitting
            return skeleton.text(rendered), spans
        text = self._template.render(messages, tools)
        return text, [self._one(text, messages, tools, index) for index in turns]

    def _between_pieces(
        self, skeleton: Skeleton, rendered: Sequence[str], turns: Sequence[int]
    ) -> list[Span] | None:
        """The spans by the skeleton of the conversation; None if a turn has other markers than usual."""
        # (messages,) where each content ends in the rendered text
        parts = zip(skeleton.pieces, rendered, strict=False)
        ends = [*accumulate(len(piece) + len(text) for piece, text in parts)]
        spans: list[Span] = []
        for index in turns:
            before = skeleton.pieces[index]
            start = self.markers.start_in(before)
            if start is None or not skeleton.pieces[index + 1].startswith(self._closing):
                return None
            begin = ends[index] - len(rendered[index])
            spans.append(Span(index, begin - (len(before) - start), ends[index] + len(self._closing)))
        return spans

    def _one(self, text: str, messages: Sequence[Message], tools: Any, index: int) -> Span:
        # Replacing is tried first: it also checks that the text after the turn does not depend on it.
        try:
            return self._by_replacing(text, messages, tools, index)
        except RowError as first:
            try:
                return self._by_prefixes(text, messages, tools, index)
            except RowError:
                raise first from None

    def _by_replacing(self, text: str, messages: Sequence[Message], tools: Any, index: int) -> Span:
        """The span is the part of the rendered text that changes when the turn is replaced."""
        mark = number_not_in(text, index)
        replaced = [*messages[:index], {"role": "assistant", "content": mark}, *messages[index + 1 :]]
        pieces = split_at(self._template.render(replaced, tools), [mark])
        if pieces is None:
            raise _inexact(f"turn {index + 1} is not rendered exactly once")
        before, after = pieces
        start = self._start(before, messages, tools, index)
        if not after.startswith(self._closing):
            raise _inexact(f"turn {index + 1} does not end with {quoted(self.markers.end)}")
        after = after[len(self._closing) :]
        end = len(text) - len(after)
        if end < start or text[:start] != before[:start] or text[end:] != after:
            raise _inexact(f"the rendering of other turns depends on turn {index + 1}")
        return self._closed(Span(index, start, end), text)

    def _by_prefixes(self, text: str, messages: Sequence[Message], tools: Any, index: int) -> Span:
        """For templates that refuse the replaced turn: the text that it adds to its generation prompt."""
        prompt = self._template.render(messages[:index], tools, add_generation_prompt=True)
        whole = self._template.render(messages[: index + 1], tools)
        end = whole.rfind(self.markers.end) + len(self.markers.end)
        if not text.startswith(prompt) or end <= len(prompt) or not text.startswith(whole[:end]):
            raise _inexact(f"turn {index + 1} is rendered differently within the conversation")
        return self._closed(Span(index, len(prompt), end), text)

    def _start(self, before: str, messages: Sequence[Message], tools: Any, index: int) -> int:
        """Index at which the turn starts: the end of its generation prompt in the text before its content."""
        start = self.markers.start_in(before)
        if start is not None:
            return start
        prompt = self._template.render(messages[:index], tools, add_generation_prompt=True)
        start = shared_prefix(prompt, before)
        if before[start:] not in self.markers.prefixes:
            raise _inexact(f"the start of turn {index + 1} is unknown")
        return start

    def _closed(self, span: Span, text: str) -> Span:
        """The span, checked: it must end with a control token. After a tool call this may be another one."""
        if not any(text.endswith(token, span.start, span.end) for token in self._template.added_tokens):
            raise _inexact(f"turn {span.message + 1} does not end with a control token")
        return span

    def _verify(self) -> None:
        """Checks the template once, on a sample: each span has its own answer and no user text.

        Raises:
            ChatTemplateError: a span lacks its turn, or contains text of a user turn.
        """
        answers = ("It is 100 degrees.", "  2862 degrees Celsius\n")
        messages: list[Message] = [
            {"role": "user", "content": PROBE_QUESTIONS[0]},
            {"role": "assistant", "content": answers[0]},
            {"role": "user", "content": PROBE_QUESTIONS[1]},
            {"role": "assistant", "content": answers[1]},
        ]
        try:
            text, spans = self.spans(messages, None, (1, 3))
        except RowError as error:
            raise ChatTemplateError(
                f"The loss mask of the model's chat template cannot be exact: {error.reason or REFUSED}.",
                hint=ANOTHER_TEMPLATE,
                untrusted=error.untrusted,
            ) from None
        for span, answer in zip(spans, answers, strict=True):
            turn = text[span.start : span.end]
            if answer.strip() not in turn or any(question in turn for question in PROBE_QUESTIONS):
                raise ChatTemplateError(
                    "The model's chat template mixes turns.", hint=ANOTHER_TEMPLATE, untrusted=turn
                )


def number_not_in(text: str, seed: int) -> str:
    """Twelve digits that are not in `text`. Trimming, JSON, escaping and change of case keep digits."""
    number = 703_159_264_801 + seed * 1_000_003
    while str(number) in text:
        number += 7
    return str(number)


def split_at(text: str, marks: list[str]) -> list[str] | None:
    """`text` split at the marks; None unless each occurs once and in order."""
    pieces: list[str] = []
    for mark in marks:
        before, found, text = text.partition(mark)
        if not found or mark in text:
            return None
        pieces.append(before)
    return [*pieces, text]


def _inexact(reason: str) -> RowError:
    return RowError("mask_inexact", reason)
