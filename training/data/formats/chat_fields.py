"""Converts one turn of a row, with any known field names, to an OpenAI chat message."""

from __future__ import annotations

import json
from typing import Any, cast

from ..readers.rows import RowError
from .messages import Message

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "function_response": "tool",
    "ipython": "tool",
    "function_call": "function_call",
}
REASONING = ("reasoning_content", "thinking", "reasoning")
KEPT = ("name", "tool_call_id")
USUAL = frozenset(("system", "user", "assistant", "tool"))
"""Roles that need no mapping."""


def message_of(turn: object, number: int) -> Message:
    """A message from a turn with `role`/`content` or `from`/`value`.

    Args:
        number: of the turn in its row, from 1, for errors.

    Raises:
        RowError: the role is unknown, or the content is not text.
    """
    if not isinstance(turn, dict):
        raise RowError("wrong_type", f"turn {number} is {type(turn).__name__}, not an object")
    fields = cast("dict[str, Any]", turn)
    if _is_message(fields):
        return fields
    role = _role(fields, number)
    content = _content(fields.get("content", fields.get("value")), number)
    if role == "function_call":
        return {
            "role": "assistant",
            "content": "",
            "tool_calls": [tool_call(json_of(content, number), number)],
        }
    message: Message = {"role": role, "content": content}
    if fields.get("tool_calls"):
        calls = fields["tool_calls"]
        if not isinstance(calls, list):
            raise RowError("wrong_type", f"tool_calls of turn {number} is not a list")
        message["tool_calls"] = [tool_call(call, number) for call in cast("list[Any]", calls)]
    elif content is None:
        raise RowError("wrong_type", f"turn {number} ({role}) has no content")
    return _with_extras(message, fields, number)


def _is_message(fields: dict[str, Any]) -> bool:
    """Whether a turn is a message already, as most turns are. Checked first, for speed."""
    if len(fields) != 2:
        return False
    role = fields.get("role")
    return isinstance(role, str) and role in USUAL and isinstance(fields.get("content"), str)


def _with_extras(message: Message, fields: dict[str, Any], number: int) -> Message:
    message["content"] = message["content"] or ""
    for key in KEPT:
        if isinstance(fields.get(key), str):
            message[key] = fields[key]
    for key in REASONING:
        if fields.get(key) is not None:
            message["reasoning_content"] = _content(fields[key], number)
            break
    return message


def _role(fields: dict[str, Any], number: int) -> str:
    given = fields.get("role", fields.get("from"))
    role = ROLES.get(given.strip().lower()) if isinstance(given, str) else None
    if role is None:
        shown = "no role" if given in (None, "") else f"the role {given!r:.40}"
        raise RowError("unknown_role", f"turn {number} has {shown}")
    return role


def _content(content: object, number: int) -> str | None:
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise RowError("wrong_type", f"the content of turn {number} is {type(content).__name__}, not text")
    return "".join(_part(part, number) for part in cast("list[Any]", content))


def _part(part: object, number: int) -> str:
    if isinstance(part, str):
        return part
    fields: dict[str, Any] = cast("dict[str, Any]", part) if isinstance(part, dict) else {}
    text = fields.get("text")
    if fields.get("type", "text") in ("text", "input_text", "output_text") and isinstance(text, str):
        return text
    raise RowError(
        "unsupported_content",
        f"turn {number} has a part of type {fields.get('type')!r:.40}",
    )


def tool_call(call: object, number: int) -> dict[str, Any]:
    """A tool call with its arguments as an object, as chat templates expect."""
    fields = cast("dict[str, Any]", call) if isinstance(call, dict) else {}
    function = fields.get("function", fields)
    if not isinstance(function, dict) or not isinstance(cast("dict[str, Any]", function).get("name"), str):
        raise RowError("wrong_type", f"a tool call of turn {number} has no function name")
    named = cast("dict[str, Any]", function)
    arguments = named.get("arguments", {})
    if isinstance(arguments, str):
        arguments = json_of(arguments or "{}", number)
    called = {"type": "function", "function": {"name": named["name"], "arguments": arguments}}
    return {**called, "id": fields["id"]} if isinstance(fields.get("id"), str) else called


def json_of(text: str | None, number: int) -> Any:
    """Parses the JSON text of a tool call."""
    try:
        return json.loads(text or "")
    except (ValueError, RecursionError):
        raise RowError("wrong_type", f"a tool call of turn {number} is not valid JSON") from None


def tools_of(given: object) -> list[dict[str, Any]] | None:
    """The `tools` of a row: a list of function schemas, or the JSON text of such a list."""
    if given is None or given == "" or given == []:
        return None
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            raise RowError("wrong_type", "tools is not valid JSON") from None
    if isinstance(given, list) and all(isinstance(tool, dict) for tool in cast("list[Any]", given)):
        return cast("list[dict[str, Any]]", given)
    raise RowError("wrong_type", "tools is not a list of function schemas")
