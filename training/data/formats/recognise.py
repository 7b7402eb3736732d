"""Recognises the format of a row by its keys, and converts it to one of the types of messages.py.

| format | keys |
|---|---|
| preference | `chosen` and `rejected`, with or without `prompt`; KTO: `prompt`, `completion`, `label` |
| OpenAI chat | `messages` with `role`/`content`, `tools`, tool calls, text parts |
| ShareGPT | `conversations` with `from`/`value` |
| Alpaca | `instruction`, `output`, and `input`, `system` if given |
| prompt and completion | `prompt` with `completion` or `response`; texts or lists of messages |
| question and answer | `question` and `answer`, or `query` and `response`, or `input` and `output` |
| ChatML | `text` that starts with `<|im_start|>` |
| text | `text` |

The first match applies, from top to bottom. If `columns` is set, only the mapped fields are matched.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, cast

from ..readers.rows import RowError
from .chat_fields import message_of, tools_of
from .chatml import is_chatml, parse
from .messages import Completion, Conversation, FormatName, Message, Preference, Recognised, Text

PAIRS: tuple[tuple[str, str, FormatName], ...] = (
    ("instruction", "output", "alpaca"),
    ("instruction", "response", "alpaca"),
    ("prompt", "completion", "prompt_completion"),
    ("prompt", "response", "prompt_completion"),
    ("question", "answer", "question_answer"),
    ("query", "response", "question_answer"),
    ("input", "output", "question_answer"),
)
CHATS: tuple[tuple[str, FormatName], ...] = (
    ("messages", "openai"),
    ("conversations", "sharegpt"),
    ("conversation", "sharegpt"),
)
FIELDS = (
    "messages", "conversations", "instruction", "input", "output", "system", "prompt", "completion",
    "question", "answer", "text", "chosen", "rejected", "label", "tools",
)  # fmt: skip
"""The fields that `columns` can set."""


def recognise(row: Mapping[str, Any], columns: Mapping[str, str] | None = None) -> Recognised:
    """Converts a row to its format.

    Args:
        row: the keys and values of a row.
        columns: field → key of the row, e.g. `{"prompt": "Frage", "completion": "Antwort"}`. Other keys of
            the row are then ignored.

    Raises:
        RowError: no format matches, or a field has the wrong type.
    """
    value = _mapped(row, columns) if columns else row
    present = {key for key, item in value.items() if item is not None}
    if {"chosen", "rejected"} <= present:
        return _preference(value)
    for key, name in CHATS:
        if key in present:
            return _conversation(value, key, name)
    if {"prompt", "completion", "label"} <= present and isinstance(value["label"], bool):
        return _kto(value)
    for question, answer, name in PAIRS:
        if {question, answer} <= present:
            return _pair(value, question, answer, name)
    if "text" in present:
        return _text(value)
    empty = [key for key in FIELDS if key in value and value[key] is None]
    if empty:
        raise RowError("empty", f"{', '.join(empty)[:120]} is null")
    raise RowError(
        "unrecognised", f"no known format has the keys {', '.join(map(str, value))[:120] or '(none)'}"
    )


def _mapped(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    for column in columns.values():
        if column not in row:
            close = get_close_matches(column, list(row), n=1)
            raise RowError(
                "unrecognised", f"no column {column!r}" + (f"; there is {close[0]!r}" if close else "")
            )
    return {field: row[column] for field, column in columns.items()}


def _conversation(value: Mapping[str, Any], key: str, name: FormatName) -> Conversation:
    turns = _turns(value[key], key)
    messages = [message_of(turn, number) for number, turn in enumerate(turns, start=1)]
    system = _system(value, messages)
    untrained = frozenset(
        index for index, turn in enumerate(turns, start=len(system)) if turn.get("weight") == 0
    )
    return Conversation(name, system + messages, tools_of(value.get("tools")), untrained)


def _turns(turns: object, key: str) -> list[Any]:
    if not isinstance(turns, list):
        raise RowError("wrong_type", f"{key} is {type(turns).__name__}, not a list of turns")
    if not turns:
        raise RowError("empty", f"{key} is empty")
    return cast("list[Any]", turns)


def _system(value: Mapping[str, Any], messages: list[Message]) -> list[Message]:
    """The row's `system` field as a message, even if empty, unless the first turn is a system message."""
    if not isinstance(value.get("system"), str) or messages[0]["role"] == "system":
        return []
    return [{"role": "system", "content": value["system"]}]


def _pair(
    value: Mapping[str, Any], question: str, answer: str, name: FormatName
) -> Conversation | Completion:
    if isinstance(value[question], list) or isinstance(value[answer], list):
        return _pair_of_chats(value, question, answer, name)
    prompt, completion = _string(value, question), _string(value, answer)
    if name == "alpaca" and isinstance(value.get("input"), str) and value["input"].strip():
        prompt = f"{prompt}\n\n{value['input']}"
    if name == "prompt_completion" and not isinstance(value.get("system"), str):
        return Completion(name, prompt, completion)
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
    return Conversation(name, [*_system(value, messages), *messages])


def _pair_of_chats(value: Mapping[str, Any], question: str, answer: str, name: FormatName) -> Conversation:
    """Lists of messages for prompt and completion. Assistant turns of the prompt carry no loss."""
    prompt, completion = _side(value, question, "user"), _side(value, answer, "assistant")
    untrained = frozenset(index for index, message in enumerate(prompt) if message["role"] == "assistant")
    return Conversation(name, [*prompt, *completion], tools_of(value.get("tools")), untrained)


def _side(value: Mapping[str, Any], key: str, role: str) -> list[Message]:
    """The messages of a field: a text is one message of `role`."""
    if isinstance(value[key], str):
        return [{"role": role, "content": value[key]}]
    return [message_of(turn, number) for number, turn in enumerate(_turns(value[key], key), start=1)]


def _string(value: Mapping[str, Any], key: str) -> str:
    given = value[key]
    if isinstance(given, str):
        return given
    raise RowError("wrong_type", f"{key} is {type(given).__name__}, not text")


def _text(value: Mapping[str, Any]) -> Text | Conversation:
    text = _string(value, "text")
    if not is_chatml(text):
        return Text("text", text)
    messages = [message_of(turn, number) for number, turn in enumerate(parse(text), start=1)]
    if not messages:
        raise RowError("empty", "the ChatML text has no turns")
    return Conversation("chatml", messages)


def _preference(value: Mapping[str, Any]) -> Preference:
    prompt = _side(value, "prompt", "user") if value.get("prompt") is not None else []
    chosen, rejected = _side(value, "chosen", "assistant"), _side(value, "rejected", "assistant")
    for name, side in (("chosen", chosen), ("rejected", rejected)):
        if side[-1]["role"] != "assistant" or not side[-1]["content"].strip():
            raise RowError("empty", f"{name} does not end with an answer")
    if chosen == rejected:
        raise RowError("empty", "chosen and rejected are equal")
    return Preference("preference", prompt, chosen, rejected)


def _kto(value: Mapping[str, Any]) -> Preference:
    answer = _side(value, "completion", "assistant")
    return Preference("kto", _side(value, "prompt", "user"), answer, None, value["label"])
