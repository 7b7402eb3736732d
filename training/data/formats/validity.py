"""Whether a recognised row can be trained on, and findings about its turns."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, cast

from ...untrusted import short_name
from ..readers.rows import RowError
from .messages import Completion, Conversation, Message, Preference, Recognised, Text, texts_of
from .recognise import recognise
from .unread import is_metadata

LONGEST_JSON = 1_000_000
"""Characters of a text that is tried as JSON."""

MAX_TURNS = 2_000
MAX_CHAT_CHARACTERS = 2**24
"""Limits of a conversation: far above what a model can read at once, and below what fills the memory."""
MAX_WORD = 2**20
"""A tokenizer needs some 80 bytes for each character of a word."""
MAX_DEPTH = 64


def require_shallow(value: Any, depth: int = 0) -> None:
    """Raises RowError for a value that is nested more deeply than any row is."""
    if depth > MAX_DEPTH:
        raise RowError("parse", f"nested more than {MAX_DEPTH} deep")
    inner = cast("Iterable[object]", value.values() if isinstance(value, dict) else value)
    for item in inner:
        if isinstance(item, dict | list):
            require_shallow(cast("Any", item), depth + 1)


def require_trainable(row: Recognised) -> None:
    """Raises RowError if the row has no trainable text, is too long, or its format is not trained on yet."""
    if isinstance(row, Preference):
        raise RowError(row.format, f"format {row.format}")
    if isinstance(row, Conversation) and len(row.messages) > MAX_TURNS:
        raise RowError("too_long", f"{len(row.messages):,} turns; the limit is {MAX_TURNS:,}")
    texts = [text for _, text in texts_of(row)]
    characters = sum(map(len, texts))
    if characters > MAX_CHAT_CHARACTERS and not isinstance(row, Text):
        raise RowError("too_long", f"{characters:,} characters; the limit is {MAX_CHAT_CHARACTERS:,}")
    for text in texts:
        if len(text) > MAX_WORD and any(
            word.end() - word.start() > MAX_WORD for word in re.finditer(r"\s+|\S+", text)
        ):
            raise RowError("too_long", f"a word, or white space, of more than {MAX_WORD:,} characters")
    if isinstance(row, Text):
        if not row.text.strip():
            raise RowError("empty", "the text is empty")
    elif isinstance(row, Completion):
        if not row.completion.strip():
            raise RowError("empty", "the completion is empty")
    else:
        _require_answers(row)


def _require_answers(row: Conversation) -> None:
    roles = [message["role"] for message in row.messages]
    answers = [
        message
        for index, message in enumerate(row.messages)
        if message["role"] == "assistant" and index not in row.untrained
    ]
    if not answers:
        raise RowError("no_assistant", f"roles: {' '.join(roles[:6])}" if roles else "no turns")
    if not any(has_content(message) for message in answers):
        raise RowError("empty", "every assistant turn is empty")
    asked = [index for index, role in enumerate(roles) if role in ("user", "tool")]
    if asked and "assistant" not in roles[asked[0] :]:
        raise RowError("swapped_roles", f"roles: {' '.join(roles[:6])}")


def has_content(message: Message) -> bool:
    """Whether a message has text, reasoning or a tool call."""
    return bool(message["content"].strip() or message.get("tool_calls") or message.get("reasoning_content"))


def turn_findings(row: Recognised) -> Iterator[str]:
    """The kinds of warnings for the row's turns, each once."""
    if isinstance(row, Text) and _is_json_of_a_row(row.text):
        yield "json_text"
    if isinstance(row, Completion) and not row.prompt.strip():
        yield "empty_turn"
    if not isinstance(row, Conversation):
        return
    messages = row.messages
    roles = [message["role"] for message in messages]
    if any(not has_content(message) for message in messages if message["role"] != "system"):
        yield "empty_turn"
    if not {"user", "tool"} & set(roles):
        yield "one_sided"
    elif roles[-1] in ("user", "tool"):
        yield "unanswered_end"
    if any(before == after and before in ("user", "assistant") for before, after in pairwise(roles)):
        yield "repeated_role"
    if "system" in roles[1:]:
        yield "late_system"


def _is_json_of_a_row(text: str) -> bool:
    """Whether a text is the JSON of a row, or of a list of turns, that would be recognised on its own."""
    if text.lstrip()[:1] not in ("{", "[") or len(text) > LONGEST_JSON:
        return False
    try:
        value: Any = json.loads(text)
        row = recognise(value if isinstance(value, dict) else {"messages": value})  # pyright: ignore[reportUnknownArgumentType]
    except (RowError, ValueError, RecursionError):
        return False
    return not isinstance(row, Text)


def unread_findings(row: Recognised) -> Iterator[tuple[str, str]]:
    """The findings for keys that are not read: (kind, keys)."""
    if isinstance(row, Preference) or not row.unread:
        return
    for kind, keys in (
        ("unread", [key for key in row.unread if not is_metadata(key)]),
        ("metadata", [key for key in row.unread if is_metadata(key)]),
    ):
        if keys:
            yield kind, ", ".join(map(short_name, keys))


def turn_pattern(row: Recognised) -> str:
    """A short description of the row's turns, e.g. `system (user assistant)x3`."""
    if isinstance(row, Text):
        return "text"
    if isinstance(row, Completion):
        return "prompt completion"
    if isinstance(row, Preference):
        return row.format
    roles = [message["role"] for message in row.messages]
    head = roles[:1] if roles[:1] == ["system"] else []
    pairs = roles[len(head) :]
    count, odd = divmod(len(pairs), 2)
    if count > 1 and not odd and pairs == ["user", "assistant"] * count:
        return " ".join([*head, f"(user assistant)x{count}"])
    return " ".join(roles[:8]) + (" …" if len(roles) > 8 else "")
