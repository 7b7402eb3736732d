"""ChatML (`<|im_start|>role\\ncontent<|im_end|>\\n` for each turn): parsing and rendering."""

from __future__ import annotations

import re

from ..readers.rows import RowError
from .messages import Message

START, END = "<|im_start|>", "<|im_end|>"
TURN = re.compile(r"<\|im_start\|>([A-Za-z_]+)[ \t]*(?:\r?\n|$)", re.ASCII)


def is_chatml(text: str) -> bool:
    """Whether the text starts with a ChatML turn."""
    return text.lstrip().startswith(START)


def parse(text: str) -> list[Message]:
    """The turns of a ChatML text. The last turn may lack its end mark, if it has content.

    Raises:
        RowError: there is text outside the turns, or a turn has no role.
    """
    messages: list[Message] = []
    at = _skip_space(text, 0)
    while at < len(text):
        turn = TURN.match(text, at)
        if not turn:
            raise RowError("wrong_type", f"the ChatML text has no turn at character {at + 1}")
        end = text.find(END, turn.end())
        content = text[turn.end() : end if end >= 0 else len(text)]
        if START in content:
            raise RowError("wrong_type", f"turn {len(messages) + 1} of the ChatML text has no {END}")
        if end >= 0 or content.strip():
            messages.append({"role": turn[1], "content": content})
        at = _skip_space(text, end + len(END)) if end >= 0 else len(text)
    return messages


def render(messages: list[Message]) -> str:
    """Renders turns as ChatML; the inverse of `parse`."""
    return "".join(f"{START}{message['role']}\n{message['content']}{END}\n" for message in messages)


def _skip_space(text: str, at: int) -> int:
    while at < len(text) and text[at].isspace():
        at += 1
    return at
