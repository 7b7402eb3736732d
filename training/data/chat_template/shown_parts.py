"""Which parts of a conversation a chat template does not show.

A template may drop tool calls, lists of tools, results, reasoning, or the text beside a call without an
error. So the conversation is rendered once more with a mark of its own in each part: a part whose mark is
missing is not shown. What a template shows depends on which parts a conversation has, not on their words, so
the result is kept for all conversations of the same form.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any, cast

from ..formats.messages import Message
from ..readers.rows import RowError
from .template import ChatTemplate

MAX_FORMS = 1000
"""Forms of conversations kept in memory."""

THOUGHT_END = "</think>"
OF_ROLES = {"system": "system_lost", "tool": "tool_result_lost"}
"""The finding for a lost content, by role; "text_lost" for others."""

Part = tuple[int, str, str]
"""The message's index (-1: the list of tools), the kind of finding if it is lost, and its mark."""


class ShownParts:
    """Finds the parts of conversations that a template drops.

    Args:
        template: renders the conversations.
    """

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template
        self._lost: dict[Any, tuple[str, ...]] = {}

    def lost(self, messages: Sequence[Message], tools: list[dict[str, Any]] | None) -> tuple[str, ...]:
        """The kinds of findings for the parts that are not shown, each once.

        The conversation must be one that the template accepts.
        """
        # A skeleton has every content exactly once.
        if self._template.skeleton_for(messages, tools):
            return ()
        form = (tuple(map(_form, messages)), _names(tools))
        if form not in self._lost:
            # Bounded: a dataset may have a new form in every row.
            if len(self._lost) >= MAX_FORMS:
                self._lost.clear()
            self._lost[form] = self._find(messages, tools)
        return self._lost[form]

    def _find(self, messages: Sequence[Message], tools: list[dict[str, Any]] | None) -> tuple[str, ...]:
        marks = Marks()
        marked = [marks.in_message(index, message) for index, message in enumerate(messages)]
        marked_tools = tools and marks.in_tools(tools)
        try:
            text = self._template.render(marked, marked_tools)
        except RowError:  # it accepts only what the row has, e.g. roles by name
            return ()
        lost = [part for part in marks.parts if part[2] not in text]
        kinds = dict.fromkeys(kind for _, kind, _ in lost)
        answers = {index for index, message in enumerate(messages) if message["role"] == "assistant"}
        shown = {index for index, kind, mark in marks.parts if mark in text and kind != "name_lost"}
        if any(index in answers and index not in shown for index, *_ in lost):
            kinds = {"answer_lost": None, **kinds}
        return tuple(kinds)


class Marks:
    """Puts a mark into each part of a conversation, and lists the parts."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self._numbers = count()

    def _mark(self, message: int, kind: str) -> str:
        # Letters only: JSON, escaping, trimming and change of case do not alter them.
        letters = "".join(chr(ord("a") + int(digit)) for digit in str(next(self._numbers)))
        mark = f"zqx{letters}xqz"
        self.parts.append((message, kind, mark))
        return mark

    def in_message(self, index: int, message: Message) -> Message:
        """The message with a mark in each of its parts."""
        marked: Message = {**message}
        marked["content"] = self._in_content(index, message)
        for key, kind in (("reasoning_content", "reasoning_lost"), ("name", "name_lost")):
            if message.get(key):
                marked[key] = message[key] + self._mark(index, kind)
        if message.get("tool_calls"):
            marked["tool_calls"] = [self._in_call(index, call) for call in message["tool_calls"]]
        return marked

    def _in_content(self, index: int, message: Message) -> str:
        content: str = message["content"]
        if not content.strip():
            return content
        kind = OF_ROLES.get(message["role"], "text_lost")
        if message["role"] != "assistant" or THOUGHT_END not in content:
            return content + self._mark(index, kind)
        thought, _, answer = content.partition(THOUGHT_END)
        thought += self._mark(index, "reasoning_lost")
        return thought + THOUGHT_END + (answer + self._mark(index, kind) if answer.strip() else answer)

    def _in_call(self, index: int, call: dict[str, Any]) -> dict[str, Any]:
        function, arguments = call["function"], call["function"]["arguments"]
        name = function["name"] + self._mark(index, "tool_call_lost")
        if isinstance(arguments, dict) and arguments:
            mark = self._mark(index, "tool_call_lost")
            arguments = {**cast("dict[str, Any]", arguments), mark: mark}
        return {**call, "function": {**function, "name": name, "arguments": arguments}}

    def in_tools(self, tools: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The tools with a mark in each name and description of a function and its parameters."""
        return [self._in_schema(tool) for tool in tools]

    def _in_schema(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._in_schema(item) for item in cast("list[Any]", value)]
        if not isinstance(value, dict):
            return value
        return {
            key: item + self._mark(-1, "tools_lost")
            if key in ("name", "description") and isinstance(item, str) and item
            else self._in_schema(item)
            for key, item in cast("dict[str, Any]", value).items()
        }


def _form(message: Message) -> tuple[Any, ...]:
    content = message["content"]
    return (
        message["role"],
        bool(content.strip()),
        message["role"] == "assistant" and THOUGHT_END in content,
        bool(message.get("reasoning_content")),
        bool(message.get("name")),
        len(message.get("tool_calls") or ()),
    )


def _names(tools: list[dict[str, Any]] | None) -> tuple[str, ...]:
    """The keys of all tools' schemas, as a form."""
    return tuple(_keys(tools)) if tools else ()


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in cast("dict[str, Any]", value).items():
            yield key
            yield from _keys(item)
    elif isinstance(value, list):
        for item in cast("list[Any]", value):
            yield from _keys(item)
