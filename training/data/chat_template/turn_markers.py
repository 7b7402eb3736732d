"""The text that a chat template puts around each assistant turn, found by rendering short conversations."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from ...errors import ChatTemplateError
from ...untrusted import quoted
from ..formats.messages import Message
from ..readers.rows import RowError
from .template import ANOTHER_TEMPLATE, ChatTemplate

PROBES = (1, 2, 3)
"""Exchanges (a user turn and an assistant turn) in each conversation that is rendered."""

REFUSED = "it refuses a plain conversation"
PROBE_QUESTIONS = ("What is the boiling point of water?", "And of iron", "Which is larger?\nSay why.")


class TurnMarkers(NamedTuple):
    """The text around every assistant turn.

    Args:
        header: text right before a turn: the end of the generation prompt.
        prefixes: text that the template may add at the start of a turn, e.g. an empty think block.
        gap: white space between the content and the end-of-turn token.
        end: the end-of-turn token.
    """

    header: str
    prefixes: tuple[str, ...]
    gap: str
    end: str

    def start_in(self, before: str) -> int | None:
        """Where the turn starts in `before`, the text before its content; None if the header is missing."""
        for prefix in self.prefixes:
            if before.endswith(self.header + prefix):
                return len(before) - len(prefix)
        return None


def probe_turn_markers(template: ChatTemplate) -> TurnMarkers:
    """The turn markers of a template.

    Raises:
        ChatTemplateError: the start or the end of a turn has no marker, or the probes give different ones.
    """
    probes = [*_probes(template)]
    opened = _opened_block(probes)
    headers: list[str] = []
    tails: list[str] = []
    prefixes: set[str] = set()
    for before, prompt, tail in probes:
        shared = shared_prefix(prompt.removesuffix(opened), before)
        headers.append(before[:shared])
        prefixes.add(before[shared:])
        tails.append(tail)
    gap, end = _closing(tails, template)
    header = _ending(headers)
    if end in header:
        # The end of the turn before belongs to that turn, not to this header.
        header = header.rpartition(end)[2].lstrip()
    _require_exact(header, prefixes)
    return TurnMarkers(header, tuple(sorted(prefixes, key=len, reverse=True)), gap, end)


def _opened_block(probes: list[tuple[str, str, str]]) -> str:
    """What the generation prompt opens after the turn's header, e.g. a think block; "" for nothing.

    It is known from earlier turns, which some templates show without the block: their prompt goes on after
    what the prompt and the conversation share.
    """
    more = {prompt[shared_prefix(prompt, before) :] for before, prompt, _ in probes} - {""}
    opened = more.pop() if len(more) == 1 else ""
    return opened if all(prompt.endswith(opened) for _, prompt, _ in probes) else ""


def shared_prefix(first: str, second: str) -> int:
    """Length of the longest common prefix of two texts."""
    for index, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return index
    return min(len(first), len(second))


def _probes(template: ChatTemplate) -> Iterator[tuple[str, str, str]]:
    """For each assistant turn of each probe: the text before it, its generation prompt, the text after it."""
    for exchanges in PROBES:
        messages = _conversation(exchanges)
        try:
            text = template.render(messages)
            for index in range(1, len(messages), 2):
                before, found, tail = text.partition(messages[index]["content"])
                if not found or messages[index]["content"] in tail:
                    raise RowError("mask_inexact", "it does not render every turn exactly once")
                yield before, template.render(messages[:index], add_generation_prompt=True), tail
        except RowError as error:
            raise ChatTemplateError(
                f"The model's chat template cannot be used for training: {error.reason or REFUSED}.",
                hint="Use a model with another template.",
                untrusted=error.untrusted,
            ) from None


def _conversation(exchanges: int) -> list[Message]:
    messages: list[Message] = []
    for index in range(exchanges):
        messages.append({"role": "user", "content": PROBE_QUESTIONS[index]})
        messages.append({"role": "assistant", "content": f"8140{index}2{index}57"})
    return messages


def _closing(tails: list[str], template: ChatTemplate) -> tuple[str, str]:
    """The white space and the control token that follow every turn, the last one included."""
    common = min(tails, key=len)
    for tail in tails:
        common = common[: shared_prefix(common, tail)]
    tokens = sorted(template.added_tokens, key=len, reverse=True)
    found = re.match(rf"(\s*)({'|'.join(map(re.escape, tokens))})", common) if tokens else None
    if not found:
        raise ChatTemplateError(
            f"The model's chat template ends an assistant turn with {quoted(common[:20])}, which is no "
            "control token of its tokenizer. The model could not learn where to stop.",
            hint=ANOTHER_TEMPLATE,
        )
    return found[1], found[2]


def _ending(texts: list[str]) -> str:
    """The longest common suffix of the texts."""
    common = texts[0][::-1]
    for text in texts:
        common = common[: shared_prefix(common, text[::-1])]
    return common[::-1]


def _require_exact(header: str, prefixes: set[str]) -> None:
    reason = None
    if not header.strip():
        reason = "marks no beginning of an assistant turn"
    elif any(question in prefix for prefix in prefixes for question in PROBE_QUESTIONS):
        reason = "renders earlier turns differently in a prompt than in a conversation"
    if reason:
        raise ChatTemplateError(
            f"The model's chat template {reason}, so the loss mask cannot be exact.", hint=ANOTHER_TEMPLATE
        )
