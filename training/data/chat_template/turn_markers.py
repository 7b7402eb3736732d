"""What a chat template puts around an assistant's turn, read off short conversations that it renders."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from ...errors import ChatTemplateError
from ..formats.messages import Message
from ..readers.rows import RowError
from .template import ANOTHER_TEMPLATE, ChatTemplate

PROBES = (1, 2, 3)
"""Numbers of exchanges in the conversations that are rendered."""

QUESTIONS = ("What is the boiling point of water?", "And of iron", "Which is larger?\nSay why.")


class Frame(NamedTuple):
    """What stands around every turn.

    Args:
        header: right before a turn: the end of the generation prompt.
        leads: what the template itself may write first in a turn, e.g. an empty think block.
        gap: white space between the content and the end-of-turn token.
        end: the end-of-turn token.
    """

    header: str
    leads: tuple[str, ...]
    gap: str
    end: str

    def start_in(self, before: str) -> int | None:
        """Where the turn begins in what stands before its content, if that ends as it should."""
        for lead in self.leads:
            if before.endswith(self.header + lead):
                return len(before) - len(lead)
        return None


def probe_frame(template: ChatTemplate) -> Frame:
    """The frame of a template.

    Raises:
        ChatTemplateError: nothing marks the beginning or the end of a turn, or the probes disagree.
    """
    headers: list[str] = []
    tails: list[str] = []
    leads: set[str] = set()
    for before, prompt, tail in _probes(template):
        shared = shared_prefix(prompt, before)
        headers.append(before[:shared])
        leads.add(before[shared:])
        tails.append(tail)
    gap, end = _closing(tails, template)
    header = _ending(headers)
    if end in header:
        header = header.rpartition(end)[2].lstrip()
    _require_exact(header, leads)
    return Frame(header, tuple(sorted(leads, key=len, reverse=True)), gap, end)


def shared_prefix(first: str, second: str) -> int:
    """How many characters two texts have in common from the beginning."""
    for index, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return index
    return min(len(first), len(second))


def _probes(template: ChatTemplate) -> Iterator[tuple[str, str, str]]:
    """Of each turn of each probe: what stands before it, the prompt for it, and what stands after it."""
    for exchanges in PROBES:
        messages = _conversation(exchanges)
        try:
            text = template.render(messages)
            for index in range(1, len(messages), 2):
                before, found, tail = text.partition(messages[index]["content"])
                if not found or messages[index]["content"] in tail:
                    raise RowError("mask_inexact", "it does not show every turn exactly once")
                yield before, template.render(messages[:index], add_generation_prompt=True), tail
        except RowError as error:
            raise ChatTemplateError(
                f"The model's chat template cannot be used for training: {error.reason}.",
                hint="Use a model with another template.",
            ) from None


def _conversation(exchanges: int) -> list[Message]:
    messages: list[Message] = []
    for index in range(exchanges):
        messages.append({"role": "user", "content": QUESTIONS[index]})
        messages.append({"role": "assistant", "content": f"8140{index}2{index}57"})
    return messages


def _closing(tails: list[str], template: ChatTemplate) -> tuple[str, str]:
    """The white space and the control token that follow every turn, at the end and in the middle."""
    common = min(tails, key=len)
    for tail in tails:
        common = common[: shared_prefix(common, tail)]
    tokens = sorted(template.added_tokens, key=len, reverse=True)
    found = re.match(rf"(\s*)({'|'.join(map(re.escape, tokens))})", common) if tokens else None
    if not found:
        raise ChatTemplateError(
            f"The model's chat template ends an assistant's turn with {common[:20]!r}, which is no control "
            "token of its tokenizer: the model could not learn where to stop.",
            hint=ANOTHER_TEMPLATE,
        )
    return found[1], found[2]


def _ending(texts: list[str]) -> str:
    """What all texts end with."""
    common = texts[0][::-1]
    for text in texts:
        common = common[: shared_prefix(common, text[::-1])]
    return common[::-1]


def _require_exact(header: str, leads: set[str]) -> None:
    reason = None
    if not header.strip():
        reason = "marks no beginning of an assistant's turn"
    elif any(question in lead for lead in leads for question in QUESTIONS):
        reason = "renders earlier turns otherwise in a prompt than in a conversation"
    if reason:
        raise ChatTemplateError(
            f"The model's chat template {reason}, so the loss mask cannot be exact.", hint=ANOTHER_TEMPLATE
        )
