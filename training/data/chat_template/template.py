"""A tokenizer's chat template, and what it does with conversations that it was not written for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from ...errors import ChatTemplateError
from ..formats.messages import Message
from ..readers.rows import RowError
from .template_skeleton import Shape, shape_of

ANOTHER_TEMPLATE = 'Call again with train_on="all", or use a model with another template.'
PLAIN = {"role", "content"}
MOST_REMEMBERED = 1000
"""Sequences of roles."""


class ChatTemplate:
    """A tokenizer's chat template.

    Args:
        tokenizer: a transformers tokenizer.

    Raises:
        ChatTemplateError: the tokenizer has no chat template.
    """

    def __init__(self, tokenizer: Any) -> None:
        if not tokenizer.chat_template:
            raise ChatTemplateError(
                "The model has no chat template, so conversations cannot be put into its words.",
                hint="Use the -Instruct variant of the model, or data with a text field.",
            )
        self._tokenizer = tokenizer
        self._shapes: dict[tuple[str, ...], Shape | None] = {}
        self.added_tokens: frozenset[str] = frozenset(
            token.content for token in tokenizer.added_tokens_decoder.values() if token.content.strip()
        )

    @property
    def source(self) -> str:
        """The template's text, of all its variants."""
        return str(self._tokenizer.chat_template)

    def render(
        self, messages: Sequence[Message], tools: Any = None, *, add_generation_prompt: bool = False
    ) -> str:
        """The conversation as the model sees it.

        Raises:
            RowError: the template refuses the conversation.
        """
        shaped = None if add_generation_prompt else self.shaped(messages, tools)
        return shaped[0].text(shaped[1]) if shaped else self._run(messages, tools, add_generation_prompt)

    def shaped(self, messages: Sequence[Message], tools: Any = None) -> tuple[Shape, list[str]] | None:
        """The conversation's shape and its contents as they are shown, if its roles are all that it takes."""
        if tools or any(message.keys() != PLAIN for message in messages):
            return None
        roles = tuple([message["role"] for message in messages])
        if roles not in self._shapes:
            if len(self._shapes) >= MOST_REMEMBERED:
                self._shapes.clear()
            self._shapes[roles] = self._shape(roles)
        shape = self._shapes[roles]
        shown = shape.contents(messages) if shape else None
        return (shape, shown) if shape and shown is not None else None

    def _shape(self, roles: Sequence[str]) -> Shape | None:
        """The shape of conversations with these roles, if the tokenizer's own rendering has it too."""
        shape = shape_of(self._without_tools(), dict(self._tokenizer.special_tokens_map), roles)
        sample = [{"role": role, "content": f" \n{index} é\n "} for index, role in enumerate(roles)]
        shown = shape.contents(sample) if shape else None
        try:
            same = shape and shown is not None and shape.text(shown) == self._run(sample, None, False)
        except RowError:
            same = False
        return shape if same else None

    def _without_tools(self) -> str:
        """The template's variant for conversations without tools."""
        source: Any = self._tokenizer.chat_template
        return source if isinstance(source, str) else source.get("default", "")

    def _run(self, messages: Sequence[Message], tools: Any, prompt: bool) -> str:
        try:
            return self._tokenizer.apply_chat_template(
                messages, tools=tools, tokenize=False, add_generation_prompt=prompt
            )
        except failures() as error:
            as_text = _arguments_as_text(messages) if isinstance(error, TypeError) else None
            if as_text is None:
                raise RowError(self._refusal(messages), str(error)[:200]) from None
        return self._run(as_text, tools, prompt)

    def _refusal(self, messages: Sequence[Message]) -> str:
        has_system = bool(messages) and messages[0]["role"] == "system"
        return "system_refused" if has_system and self.refuses_system else "template_refused"

    @cached_property
    def refuses_system(self) -> bool:
        """Whether conversations with a system message are refused, and the same ones without are not."""
        turns: list[Message] = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}]
        return self._accepts(turns) and not self._accepts([{"role": "system", "content": "0"}, *turns])

    def _accepts(self, messages: list[Message]) -> bool:
        try:
            self._tokenizer.apply_chat_template(messages, tokenize=False)
        except failures():
            return False
        return True


def failures() -> tuple[type[Exception], ...]:
    """What a template's own code can raise."""
    from jinja2 import TemplateError

    own = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)
    return (TemplateError, *own)


def _arguments_as_text(messages: Sequence[Message]) -> list[Message] | None:
    """Tool calls as some templates want them, with arguments as JSON text; None if they are so already."""
    changed = [
        {**message, "tool_calls": [_with_text(call) for call in message["tool_calls"]]}
        if message.get("tool_calls")
        else message
        for message in messages
    ]
    return changed if changed != list(messages) else None


def _with_text(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    if isinstance(function["arguments"], str):
        return call
    arguments = json.dumps(function["arguments"], ensure_ascii=False)
    return {**call, "function": {**function, "arguments": arguments}}
