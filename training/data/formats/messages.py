"""What a row can be: a conversation, a completion, a text, or a preference. One type for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Message = dict[str, Any]
"""`role`, `content` and, where given, `tool_calls`, `tool_call_id`, `name`, `reasoning_content`."""

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
    "kto",
]


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns between a user and an assistant.

    Args:
        untrained: indices of assistant messages that carry no loss (`"weight": 0` in the row).
    """

    format: FormatName
    messages: list[Message]
    tools: list[dict[str, Any]] | None = None
    untrained: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Completion:
    """A prompt and its continuation: a user's and an assistant's turn where the model has a chat template."""

    format: FormatName
    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class Text:
    """Plain text; every token of it is learnt."""

    format: FormatName
    text: str


@dataclass(frozen=True, slots=True)
class Preference:
    """A better and a worse answer, or (KTO) one answer and whether it is good. Not trained on yet."""

    format: FormatName
    prompt: list[Message]
    chosen: list[Message] | None
    rejected: list[Message] | None
    label: bool | None = None


Recognised = Conversation | Completion | Text | Preference


def as_messages(row: Conversation | Completion) -> list[Message]:
    """The row's turns."""
    if isinstance(row, Conversation):
        return row.messages
    return [{"role": "user", "content": row.prompt}, {"role": "assistant", "content": row.completion}]


def texts_of(row: Recognised) -> list[tuple[str, str]]:
    """Every text in the row with the role that wrote it ("text" for plain text)."""
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
