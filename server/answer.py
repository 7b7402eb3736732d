"""What a call returns: fields for programs and most models, and the same as a text for the others.

Claude Code, VS Code, Codex and opencode give the model the fields and drop the text; claude.ai, Claude
Desktop and ChatGPT use the text. So both are complete, and neither spends room on what says nothing.
"""

from __future__ import annotations

import math
from typing import Any

from mcp.types import CallToolResult, TextContent

from ..tools.context import ToolResult
from ..training.redact import scrub, scrub_all
from ..training.untrusted import sanitized, sanitized_all

DIGITS = 4
"""Significant digits of a number that was measured."""


def answer_of(result: ToolResult) -> CallToolResult:
    """The result for a client; secrets and control characters are removed."""
    fields = {
        name: short(value)
        for name, value in result.model_dump(mode="json", exclude_none=True).items()
        if _is_required(result, name) or value != _default(result, name)
    }
    return CallToolResult(
        content=[TextContent(type="text", text=sanitized(scrub(result.text())))],
        structured_content=sanitized_all(scrub_all(fields)),
    )


def short(value: Any) -> Any:
    """The value with few digits, and without what is empty in its parts."""
    match value:
        case float():
            return _rounded(value)
        case dict():
            parts: dict[str, Any] = value  # pyright: ignore[reportUnknownVariableType]
            return {name: short(part) for name, part in parts.items() if part not in ("", [], {}, None)}
        case list():
            return [short(part) for part in value]  # pyright: ignore[reportUnknownVariableType]
        case _:
            return value


def _rounded(value: float) -> float:
    if not value or not math.isfinite(value):
        return value
    decimals = DIGITS - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, decimals)
    return int(rounded) if decimals <= 0 else rounded


def _is_required(result: ToolResult, name: str) -> bool:
    return type(result).model_fields[name].is_required()


def _default(result: ToolResult, name: str) -> Any:
    return type(result).model_fields[name].get_default(call_default_factory=True)
