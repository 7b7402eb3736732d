"""A token's kind in a GGUF file, and what added tokens become."""

from __future__ import annotations

from enum import IntEnum
from typing import Any


class TokenType(IntEnum):
    """Numbers of the GGUF format."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


CONTROL_WITHOUT_FLAG = ("<pad>", "<mask>", "<2mass>", "[@BOS@]")
BRACKETS = (("<|", "|>"), ("<｜", "｜>"), ("<unused", ">"))  # noqa: RUF001 - DeepSeek's bars are wide


READ_BY_CHATS = frozenset(
    {
        *("<|channel>", "<channel|>", "<|tool_call>", "<tool_call|>"),
        *("<|tool_response>", "<tool_response|>", '<|"|>'),
    }
)
"""Around Gemma 4's thoughts and tool calls: its chats parse these, and llama.cpp shows no control tokens."""


def added_token(token: Any) -> tuple[str, TokenType]:
    """Text and type of an added token (tokenizers' AddedToken), as llama.cpp's converter decides them.

    A control token is one that a text cannot contain; others are found in any text. Some models leave out
    the flag on tokens that by their form are control tokens.
    """
    content: str = token.content
    if content in READ_BY_CHATS:
        return content, TokenType.USER_DEFINED
    if token.special or _looks_like_control(content):
        return content, TokenType.CONTROL
    return content.replace("▁", " "), TokenType.USER_DEFINED


def padding(id: int) -> str:
    """The text that stands for an id which the tokenizer does not use."""
    return f"[PAD{id}]"


def _looks_like_control(content: str) -> bool:
    return content in CONTROL_WITHOUT_FLAG or any(
        content.startswith(opening) and content.endswith(closing) for opening, closing in BRACKETS
    )
