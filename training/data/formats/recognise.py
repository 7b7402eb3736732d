"""Recognises the format of a row by its keys, and converts it to one of the types of messages.py.

| format | keys |
|---|---|
| preference | `chosen` and `rejected`, with or without `prompt`; KTO: `prompt`, `completion`, `label` |
| OpenAI preference | `input` with `messages`, `preferred_output`, `non_preferred_output` |
| OpenAI chat | `messages` with `role`/`content`, `tools` or `functions`, tool calls, text parts |
| ShareGPT | `conversations` with `from`/`value` |
| Alpaca | `instruction`, `output` or `response`; `input` or `context`, `history`, `system` if given |
| prompt and completion | `prompt` with `completion` or `response`; texts or lists of messages |
| question and answer | `question`/`answer`, `query`/`response`, or `input`/`output`; `context` if given |
| ChatML | `text` that starts with `<|im_start|>` |
| text | `text` |

The first match applies, from top to bottom. If `columns` is set, only the mapped fields are matched. Keys
that the format does not read are listed in `unread`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, cast

from ...untrusted import quoted
from ..readers.rows import RowError
from .chat_fields import READ, functions_of, message_of, tools_of, unread_weights, weight_of, yes_or_no
from .chatml import is_chatml, parse
from .messages import Completion, Conversation, FormatName, Message, Preference, Recognised, Text
from .unread import filled, unread_in_turns, unread_keys

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
SYSTEM = ("system", "system_prompt")
TOOLS = ("tools", "functions")
CONTEXT = ("input", "context")
BESIDE = (*SYSTEM, *TOOLS)
"""Keys that are read in every format but text."""

FIELDS = (
    "messages", "conversations", "instruction", "input", "output", "system", "prompt", "completion",
    "question", "answer", "text", "chosen", "rejected", "label", "tools",
)  # fmt: skip
"""The fields that `columns` can set."""

SHOWN_KEYS = 8


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
        return _preference(value, "prompt", "chosen", "rejected", "preference")
    if {"preferred_output", "non_preferred_output"} <= present:
        return _preference(value, "input", "preferred_output", "non_preferred_output", "openai_preference")
    for key, name in CHATS:
        if key in present:
            return _conversation(value, key, name)
    for question, answer, name in PAIRS:
        if {question, answer} <= present:
            label = yes_or_no(value.get("label")) if name == "prompt_completion" else None
            if label is not None:
                return _kto(value, answer, label)
            return _pair(value, question, answer, name)
    if "text" in present:
        return _text(value)
    empty = [key for key in FIELDS if key in value and value[key] is None]
    if empty:
        raise RowError("empty", f"{', '.join(empty)} is null")
    raise RowError("unrecognised", f"no known format has the keys {_names(value)}")


def _names(value: Mapping[str, Any]) -> str:
    more = [f"and {len(value) - SHOWN_KEYS:,} more"] if len(value) > SHOWN_KEYS else []
    return ", ".join([*map(quoted, list(value)[:SHOWN_KEYS]), *more]) or "(none)"


def _mapped(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    for column in columns.values():
        if column not in row:
            close = get_close_matches(column, list(row), n=1)
            similar = f"; there is {quoted(close[0])}" if close else ""
            raise RowError("unrecognised", f"no column {quoted(column)}{similar}")
    return {field: row[column] for field, column in columns.items()}


def _conversation(value: Mapping[str, Any], key: str, name: FormatName) -> Conversation:
    turns = _turns(value[key], key)
    messages = [message_of(turn, number) for number, turn in enumerate(turns, start=1)]
    system = _system(value, messages)
    unread = _unread(value, (key, *BESIDE), system + messages, turns)
    untrained = _untrained(turns, len(system))
    return Conversation(name, system + messages, _tools(value), untrained, unread)


def _untrained(turns: list[Any], before: int) -> frozenset[int]:
    """The indices of turns that carry no loss, after `before` other messages."""
    weights = map(weight_of, turns)
    return frozenset(index for index, weight in enumerate(weights, start=before) if weight is False)


def _unread(
    value: Mapping[str, Any], read: tuple[str, ...], messages: list[Message], turns: list[Any]
) -> tuple[str, ...]:
    """The keys of the row, and of its turns, that have content and are not in the conversation."""
    texts = [message["content"] for message in messages]
    return tuple(
        dict.fromkeys([*unread_keys(value, read, texts), *unread_in_turns(turns, READ, unread_weights)])
    )


def _tools(value: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    return tools_of(value.get("tools")) or functions_of(value.get("functions"))


def _turns(turns: object, key: str) -> list[Any]:
    if not isinstance(turns, list):
        raise RowError("wrong_type", f"{key} is {type(turns).__name__}, not a list of turns")
    if not turns:
        raise RowError("empty", f"{key} is empty")
    return cast("list[Any]", turns)


def _system(value: Mapping[str, Any], messages: list[Message]) -> list[Message]:
    """The row's system text as a message, even if empty; none if the row has no such key.

    Raises:
        RowError: it is not text, or the first turn is another system message.
    """
    key = next((key for key in SYSTEM if value.get(key) is not None), None)
    if key is None:
        return []
    content = _string(value, key)
    if messages[0]["role"] != "system":
        return [{"role": "system", "content": content}]
    if filled(content) and content.strip() != messages[0]["content"].strip():
        raise RowError("wrong_type", f"{key} differs from the system message of the first turn")
    return []


def _pair(
    value: Mapping[str, Any], question: str, answer: str, name: FormatName
) -> Conversation | Completion:
    value = _opened(value, question)
    if isinstance(value[question], list) or isinstance(value[answer], list):
        return _pair_of_chats(value, question, answer, name)
    prompt, completion = _string(value, question), _string(value, answer)
    read = {question, answer, *BESIDE}
    if name != "prompt_completion":
        prompt = _with_context(value, prompt, name, read)
        read |= {*CONTEXT, "history"}
    messages: list[Message] = [
        *(_history(value) if "history" in read else []),
        {"role": "user", "content": prompt},
        {"role": "assistant", "content": completion},
    ]
    unread = unread_keys(value, read, (prompt, completion))
    system, tools = _system(value, messages), _tools(value)
    if name == "prompt_completion" and not system and not tools:
        return Completion(name, prompt, completion, unread)
    return Conversation(name, [*system, *messages], tools, unread=unread)


def _with_context(value: Mapping[str, Any], prompt: str, name: FormatName, read: set[str]) -> str:
    """The prompt with the text that it refers to: after an instruction, before a question."""
    found = [_as_text(value[key]) for key in CONTEXT if key not in read and filled(value.get(key))]
    parts = [prompt, *found] if name == "alpaca" else [*found, prompt]
    return "\n\n".join(parts)


def _as_text(value: Any) -> str:
    """A text unchanged; a number, a list or an object as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _history(value: Mapping[str, Any]) -> list[Message]:
    """Earlier turns: a list of [question, answer], as LLaMA-Factory's Alpaca format has them."""
    pairs = value.get("history")
    if not filled(pairs):
        return []
    if not isinstance(pairs, list):
        raise RowError("wrong_type", f"history is {type(pairs).__name__}, not a list of [question, answer]")
    messages: list[Message] = []
    for number, pair in enumerate(cast("list[Any]", pairs), start=1):
        match pair:
            case [str() as question, str() as answer]:
                messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            case _:
                raise RowError("wrong_type", f"item {number} of history is not [question, answer]")
    return messages


def _pair_of_chats(value: Mapping[str, Any], question: str, answer: str, name: FormatName) -> Conversation:
    """Lists of messages for prompt and completion. Assistant turns of the prompt carry no loss."""
    prompt, completion = _side(value, question, "user"), _side(value, answer, "assistant")
    messages = [*prompt, *completion]
    system = _system(value, messages)
    before = len(system) + len(prompt)
    untrained = {len(system) + index for index, one in enumerate(prompt) if one["role"] == "assistant"}
    asked, answers = _list(value[question]), _list(value[answer])
    unread = _unread(value, (question, answer, *BESIDE), messages, [*asked, *answers])
    marked = frozenset(untrained | _untrained(answers, before))
    return Conversation(name, [*system, *messages], _tools(value), marked, unread)


def _opened(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The row with a request of OpenAI's API, an object with `messages`, as its messages and its tools."""
    given = value.get(key)
    if not isinstance(given, dict) or "messages" not in given:
        return value
    request = cast("dict[str, Any]", given)
    beside = {name: item for name, item in request.items() if name != "messages" and name not in value}
    return {**value, **beside, key: request["messages"]}


def _list(value: object) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []


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
        return Text("text", text, unread_keys(value, ("text",)))
    messages = [message_of(turn, number) for number, turn in enumerate(parse(text), start=1)]
    if not messages:
        raise RowError("empty", "the ChatML text has no turns")
    system = _system(value, messages)
    unread = unread_keys(value, ("text", *BESIDE))
    return Conversation("chatml", [*system, *messages], _tools(value), unread=unread)


def _preference(
    value: Mapping[str, Any], asked: str, better: str, worse: str, name: FormatName
) -> Preference:
    value = _opened(value, asked)
    prompt = _side(value, asked, "user") if value.get(asked) is not None else []
    chosen, rejected = _side(value, better, "assistant"), _side(value, worse, "assistant")
    for key, side in ((better, chosen), (worse, rejected)):
        if side[-1]["role"] != "assistant" or not _says_something(side[-1]):
            raise RowError("empty", f"{key} does not end with an answer")
    if chosen == rejected:
        raise RowError("empty", f"{better} and {worse} are equal")
    return Preference(name, prompt, chosen, rejected)


def _says_something(answer: Message) -> bool:
    return bool(answer["content"].strip() or answer.get("tool_calls"))


def _kto(value: Mapping[str, Any], answer: str, label: bool) -> Preference:
    return Preference("kto", _side(value, "prompt", "user"), _side(value, answer, "assistant"), None, label)
