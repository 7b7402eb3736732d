"""Which parts of a conversation a chat template does not show.

A template may drop tool calls, lists of tools, results, reasoning, or the text beside a call without an
error. So the conversation is rendered once more with a mark of its own in each part: a part whose mark is
missing is not shown. What a template shows depends on which parts a conversation has, not on their words, so
the result is kept for all conversations of the same form.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterator, Sequence
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

TOOLS = -1
"""The place of the list of tools among the indices of messages."""

Part = tuple[int, str, str]
"""The index of its message, the kind of finding if it is lost, and its mark."""


class ShownParts:
    """Finds the parts of conversations that a template drops.

    Args:
        template: renders the conversations.
    """

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template
        self._lost: dict[Any, tuple[str, ...]] = {}

    def lost(
        self, messages: Sequence[Message], tools: list[dict[str, Any]] | None, trained: Collection[int]
    ) -> tuple[str, ...]:
        """The kinds of findings for the parts that are not shown, each once.

        Args:
            messages: a conversation that the template accepts.
            trained: indices of the messages that carry loss.
        """
        # A skeleton has every content exactly once.
        if self._template.skeleton_for(messages, tools):
            return ()
        form = (tuple(map(_form, messages)), _names(tools), tuple(trained))
        if form not in self._lost:
            # Bounded: a dataset may have a new form in every row.
            if len(self._lost) >= MAX_FORMS:
                self._lost.clear()
            self._lost[form] = self._find(messages, tools, trained)
        return self._lost[form]

    def _find(
        self, messages: Sequence[Message], tools: list[dict[str, Any]] | None, trained: Collection[int]
    ) -> tuple[str, ...]:
        everywhere = range(TOOLS, len(messages))
        found = self._shown(messages, tools, everywhere)
        if found is None:
            # It accepts only some values, e.g. known names of tools: the other parts are marked one by one.
            alone = [self._shown(messages, tools, (index,)) for index in everywhere]
            found = {part: shown for one in alone if one for part, shown in one.items()}
        kinds = dict.fromkeys(kind for (_, kind, _), shown in found.items() if not shown)
        seen = {index for (index, kind, _), shown in found.items() if shown and kind != "name_lost"}
        if any(index in trained and index not in seen for index, *_ in found):
            kinds = {"answer_lost": None, **kinds}
        return tuple(kinds)

    def _shown(
        self, messages: Sequence[Message], tools: list[dict[str, Any]] | None, where: Container[int]
    ) -> dict[Part, bool] | None:
        """Whether each part of the messages `where` is shown; None if the template refuses the marks."""
        marks = Marks()
        marked = [
            marks.in_message(index, message) if index in where else message
            for index, message in enumerate(messages)
        ]
        marked_tools = marks.in_tools(tools) if tools and TOOLS in where else tools
        try:
            text = self._template.render(marked, marked_tools)
        except RowError:
            return None
        return {part: part[2] in text for part in marks.parts}


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
        if arguments:
            mark = self._mark(index, "tool_call_lost")
            match arguments:
                case dict():
                    arguments = {**cast("dict[str, Any]", arguments), mark: mark}
                case list():
                    arguments = [*cast("list[Any]", arguments), mark]
                case _:
                    arguments = f"{arguments}{mark}"
        return {**call, "function": {**function, "name": name, "arguments": arguments}}

    def in_tools(self, tools: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The tools with a mark in each name, description and choice of a function and its parameters."""
        return [self._in_schema(tool) for tool in tools]

    def _in_schema(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._in_schema(item) for item in cast("list[Any]", value)]
        if not isinstance(value, dict):
            return value
        schema = cast("dict[str, Any]", value)
        return {key: self._in_entry(key, item) for key, item in schema.items()}

    def _in_entry(self, key: str, item: Any) -> Any:
        if key in ("name", "description", "default") and isinstance(item, str) and item:
            return item + self._mark(TOOLS, "tools_lost")
        if key == "enum" and isinstance(item, list):
            choices = cast("list[Any]", item)
            return [f"{choice}{self._mark(TOOLS, 'tools_lost')}" for choice in choices]
        if key == "properties" and isinstance(item, dict):
            parameters = cast("dict[str, Any]", item)
            return {
                name + self._mark(TOOLS, "tools_lost"): self._in_schema(schema)
                for name, schema in parameters.items()
            }
        return self._in_schema(item)


def _form(message: Message) -> tuple[Any, ...]:
    content = message["content"]
    return (
        message["role"],
        bool(content.strip()),
        message["role"] == "assistant" and THOUGHT_END in content,
        bool(message.get("reasoning_content")),
        bool(message.get("name")),
        tuple(_form_of_call(call) for call in message.get("tool_calls") or ()),
    )


def _form_of_call(call: dict[str, Any]) -> tuple[str, bool]:
    arguments: object = call["function"]["arguments"]
    return type(arguments).__name__, bool(arguments)


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
