"""Renders a conversation with the chat template of a tokenizer, within the limits of the sandbox.

Transformers renders the same text, but a template may then compute without end. So all our rendering is here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from .sandbox import compiled_template, template_environment


def render_chat(
    tokenizer: Any,
    messages: Sequence[Mapping[str, Any]],
    tools: Any = None,
    *,
    add_generation_prompt: bool = False,
) -> str:
    """The conversation as text.

    Args:
        tokenizer: has `chat_template` (a text, or several by name) and `special_tokens_map`.

    Raises:
        one of `template_errors()`: the template refuses the conversation, or needs too much time or memory.
    """
    if not messages:
        raise ValueError("only conversations with a message are rendered")
    text: str = _compiled(_variant(tokenizer.chat_template, bool(tools))).render(
        messages=[_with_reasoning(message) for message in messages],
        tools=tools,
        documents=None,
        add_generation_prompt=add_generation_prompt,
        **tokenizer.special_tokens_map,
    )
    text.encode()  # half of a surrogate pair is a ValueError: no tokenizer takes it
    return text


def _variant(template: Any, with_tools: bool) -> str:
    if isinstance(template, str):
        return template
    return template["tool_use" if with_tools and "tool_use" in template else "default"]


@cache
def _environment() -> Any:
    return template_environment()


@cache
def _compiled(source: str) -> Any:
    return compiled_template(_environment(), source)


def _with_reasoning(message: Mapping[str, Any]) -> dict[str, Any]:
    """The message without nulls, with its reasoning also as `thinking`, which some templates read."""
    kept = {key: value for key, value in message.items() if value is not None}
    return {"thinking": kept["reasoning_content"], **kept} if "reasoning_content" in kept else kept
