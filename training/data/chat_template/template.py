"""A tokenizer's chat template: renders conversations and explains why it refuses one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from ...errors import ChatTemplateError
from ..formats.messages import Message
from ..readers.rows import RowError
from .render import render_chat
from .sandbox import template_errors
from .template_limit import TemplateLimitError
from .template_skeleton import Skeleton, skeleton_of

ANOTHER_TEMPLATE = 'Set train_on="all", or use a model with another template.'
PLAIN = {"role", "content"}
LONG_CHARACTERS, LONG_TURNS = 2**18, 200
"""A conversation that is longer may be the reason why its rendering takes long."""
MAX_SKELETONS = 1000
"""Skeletons kept in memory, one per sequence of roles."""


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
                "The model has no chat template, so conversations cannot be rendered.",
                hint="Use the -Instruct variant of the model, or rows with a text field.",
            )
        self._tokenizer = tokenizer
        self._broken: ChatTemplateError | None = None
        self._skeletons: dict[tuple[str, ...], Skeleton | None] = {}
        self.added_tokens: frozenset[str] = frozenset(
            token.content for token in tokenizer.added_tokens_decoder.values() if token.content.strip()
        )

    @property
    def source(self) -> str:
        """The source of the template, all named variants included."""
        return str(self._tokenizer.chat_template)

    def render(
        self, messages: Sequence[Message], tools: Any = None, *, add_generation_prompt: bool = False
    ) -> str:
        """The conversation as the model sees it.

        Raises:
            RowError: the template refuses the conversation.
        """
        fitting = None if add_generation_prompt else self.skeleton_for(messages, tools)
        return fitting[0].text(fitting[1]) if fitting else self._run(messages, tools, add_generation_prompt)

    def skeleton_for(
        self, messages: Sequence[Message], tools: Any = None
    ) -> tuple[Skeleton, list[str]] | None:
        """The conversation's skeleton and its contents as rendered; None if it must run through jinja."""
        if tools or any(message.keys() != PLAIN for message in messages):
            return None
        roles = tuple([message["role"] for message in messages])
        if roles not in self._skeletons:
            # Bounded: a dataset may have a new sequence of roles in every row.
            if len(self._skeletons) >= MAX_SKELETONS:
                self._skeletons.clear()
            self._skeletons[roles] = self._skeleton(roles)
        skeleton = self._skeletons[roles]
        rendered = skeleton.contents(messages) if skeleton else None
        return (skeleton, rendered) if skeleton and rendered is not None else None

    def _skeleton(self, roles: Sequence[str]) -> Skeleton | None:
        """The skeleton of conversations with these roles, if the tokenizer renders a sample the same way."""
        skeleton = skeleton_of(self._without_tools(), dict(self._tokenizer.special_tokens_map), roles)
        sample = [{"role": role, "content": f" \n{index} é\n "} for index, role in enumerate(roles)]
        rendered = skeleton.contents(sample) if skeleton else None
        try:
            same = (
                skeleton
                and rendered is not None
                and skeleton.text(rendered) == self._run(sample, None, False)
            )
        except RowError:
            same = False
        return skeleton if same else None

    def _without_tools(self) -> str:
        """The source of the variant for conversations without tools."""
        source: Any = self._tokenizer.chat_template
        return source if isinstance(source, str) else source.get("default", "")

    def _run(self, messages: Sequence[Message], tools: Any, prompt: bool) -> str:
        if self._broken:
            raise self._broken
        try:
            text = render_chat(self._tokenizer, messages, tools, add_generation_prompt=prompt)
        except TemplateLimitError as error:
            raise self._too_much(error, messages) from None
        except template_errors() as error:
            as_text = _arguments_as_text(messages) if isinstance(error, TypeError) else None
            if as_text is None:
                raise RowError(self._refusal(messages), "", str(error)) from None
            return self._run(as_text, tools, prompt)
        if _prints_python(text, messages):  # it needs them as OpenAI gives them: JSON in a text
            return self._run(_arguments_as_text(messages) or messages, tools, prompt)
        return text

    def _too_much(self, error: Exception, messages: Sequence[Message]) -> Exception:
        """The fault is the conversation's if it is long, else the template's."""
        characters = sum(len(message["content"]) for message in messages)
        if characters > LONG_CHARACTERS or len(messages) > LONG_TURNS:
            return RowError("template_refused", f"{error}, for {len(messages):,} turns")
        self._broken = self._broken or ChatTemplateError(
            f"The model's chat template is not usable: {error}.",
            hint="Use a model whose template does no more than to show the turns.",
        )
        return self._broken

    def _refusal(self, messages: Sequence[Message]) -> str:
        has_system = bool(messages) and messages[0]["role"] == "system"
        return "system_refused" if has_system and self.refuses_system else "template_refused"

    @cached_property
    def refuses_system(self) -> bool:
        """Whether a conversation is refused with a system message and accepted without it."""
        turns: list[Message] = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}]
        return self._accepts(turns) and not self._accepts([{"role": "system", "content": "0"}, *turns])

    def _accepts(self, messages: list[Message]) -> bool:
        try:
            render_chat(self._tokenizer, messages)
        except template_errors():
            return False
        return True


def _prints_python(text: str, messages: Sequence[Message]) -> bool:
    """Whether the arguments of a call are in the text as Python prints them, and not as JSON."""
    calls = (call for message in messages for call in message.get("tool_calls", ()))
    objects = (call["function"]["arguments"] for call in calls)
    return any(
        str(given) in text and str(given) != json.dumps(given, ensure_ascii=False)
        for given in objects
        if not isinstance(given, str)
    )


def _arguments_as_text(messages: Sequence[Message]) -> list[Message] | None:
    """The messages with tool-call arguments as JSON text, as some templates need; None if nothing changes."""
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
