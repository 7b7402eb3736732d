"""The types of a recognised row: conversation, completion, text, preference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Message = dict[str, Any]
"""`role`, `content` and optionally `tool_calls`, `tool_call_id`, `name`, `reasoning_content`."""

Role = Literal["system", "user", "assistant", "tool"]

FormatName = Literal[
    "sharegpt",
    "openai",
    "alpaca",
    "prompt_completion",
    "question_answer",
    "chatml",
    "text",
    "preference",
    "openai_preference",
    "kto",
]


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns between a user and an assistant.

    Args:
        untrained: indices of assistant messages that carry no loss (`"weight": 0` in the row).
        unread: keys of the row that have content and are not part of the conversation.
    """

    format: FormatName
    messages: list[Message]
    tools: list[dict[str, Any]] | None = None
    untrained: frozenset[int] = frozenset()
    unread: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """A prompt and its continuation. With a chat template: a user turn and an assistant turn.

    Args:
        unread: as for `Conversation`.
    """

    format: FormatName
    prompt: str
    completion: str
    unread: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Text:
    """Plain text; every token is trained.

    Args:
        unread: as for `Conversation`.
    """

    format: FormatName
    text: str
    unread: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Preference:
    """A preferred and a rejected answer, or (KTO) one answer with its label. Not trained on yet."""

    format: FormatName
    prompt: list[Message]
    chosen: list[Message] | None
    rejected: list[Message] | None
    label: bool | None = None


Recognised = Conversation | Completion | Text | Preference


def as_messages(row: Conversation | Completion) -> list[Message]:
    """The turns of the row."""
    if isinstance(row, Conversation):
        return row.messages
    return [{"role": "user", "content": row.prompt}, {"role": "assistant", "content": row.completion}]


def texts_of(row: Recognised) -> list[tuple[str, str]]:
    """Every text of the row as (role, text); the role of plain text is "text"."""
    if isinstance(row, Text):
        return [("text", row.text)]
    if isinstance(row, Preference):
        messages = [*row.prompt, *(row.chosen or []), *(row.rejected or [])]
    else:
        messages = as_messages(row)
    return [
        (message["role"], text)
        for message in messages
        for text in (message.get("reasoning_content"), message.get("content"))
        if text
    ]
