"""Converts one turn of a row, with any known field names, to an OpenAI chat message."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, cast

from ...untrusted import quoted, short_name
from ..readers.rows import RowError
from .messages import Message
from .unread import filled

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
WEIGHTS = ("weight", "train", "training", "loss")
"""Keys of a turn that say whether it carries loss (OpenAI, axolotl, ms-swift)."""

READ = frozenset(
    ("role", "from", "content", "value", "tool_calls", "function_call", *REASONING, *KEPT, *WEIGHTS)
)
"""The keys of a turn that are read."""

YES_OR_NO: dict[object, bool] = {
    "0": False,
    "0.0": False,
    "1": True,
    "1.0": True,
    "false": False,
    "true": True,
}
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
    calls = _calls(fields, number)
    if calls:
        message["tool_calls"] = calls
    elif content is None:
        raise RowError("wrong_type", f"turn {number} ({short_name(role)}) has no content")
    return _with_extras(message, fields, number)


def _calls(fields: dict[str, Any], number: int) -> list[dict[str, Any]]:
    """The tool calls of a turn, also in OpenAI's older form: one `function_call`."""
    given: object = fields.get("tool_calls") or []
    if not isinstance(given, list):
        raise RowError("wrong_type", f"tool_calls of turn {number} is not a list")
    older = [fields["function_call"]] if fields.get("function_call") else []
    return [tool_call(call, number) for call in [*cast("list[Any]", given), *older]]


def weight_of(turn: dict[str, Any]) -> bool | None:
    """Whether the turn carries loss; None if it does not say so in a known way."""
    weights = [yes_or_no(turn[key]) for key in WEIGHTS if turn.get(key) is not None]
    return False if False in weights else next(iter(weights), None)


def unread_weights(turn: dict[str, Any]) -> Iterator[str]:
    """The keys of weights that are not applied: other than 0 and 1, or 1 for a turn that is no answer."""
    for key in WEIGHTS:
        weight = yes_or_no(turn.get(key))
        answer = turn.get("role", turn.get("from")) not in ("user", "human", "system", "tool")
        if turn.get(key) is not None and (weight is None or (weight and not answer)):
            yield key


def yes_or_no(value: object) -> bool | None:
    """A boolean that is written as one, as 0 or 1, or as text; None if the value is none of these."""
    if isinstance(value, bool | int | float | str):
        return YES_OR_NO.get(str(value).strip().lower())
    return None


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
    reasoning = [fields[key] for key in REASONING if filled(fields.get(key))]
    if len(reasoning) > 1 and any(other != reasoning[0] for other in reasoning):
        raise RowError("wrong_type", f"turn {number} has two different texts of reasoning")
    if reasoning:
        message["reasoning_content"] = _content(reasoning[0], number)
    return message


def _role(fields: dict[str, Any], number: int) -> str:
    given = fields.get("role", fields.get("from"))
    role = ROLES.get(given.strip().lower()) if isinstance(given, str) else None
    if role is None:
        shown = "no role" if given in (None, "") else f"the role {quoted(given)}"
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
        f"turn {number} has a part of type {quoted(fields.get('type'))}",
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


def functions_of(given: object) -> list[dict[str, Any]] | None:
    """The `functions` of a row, OpenAI's older form of `tools`."""
    functions = tools_of(given)
    return functions and [{"type": "function", "function": function} for function in functions]
