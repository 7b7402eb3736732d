"""What a call returns: fields for programs and most models, and the same as a text for the others.

Claude Code, VS Code, Codex and opencode give the model the fields and drop the text; claude.ai, Claude
Desktop and ChatGPT use the text. So both are complete, and neither spends room on what says nothing.
"""

from __future__ import annotations

import base64
from typing import Any

from mcp.types import CallToolResult, ImageContent, TextContent

from ..tools.context import ToolResult
from ..training.redact import scrub, scrub_all
from ..training.untrusted import sanitized, sanitized_all
from .few_digits import short


def answer_of(result: ToolResult) -> CallToolResult:
    """The result for a client; secrets and control characters are removed."""
    fields = {
        name: short(value)
        for name, value in result.model_dump(mode="json", exclude_none=True).items()
        if _is_required(result, name) or value != _default(result, name)
    }
    content: list[TextContent | ImageContent] = [
        TextContent(type="text", text=sanitized(scrub(result.text())))
    ]
    if (picture := result.picture()) is not None:
        data = base64.b64encode(picture).decode()
        content.append(ImageContent(type="image", data=data, mime_type="image/png"))
    return CallToolResult(
        content=[*content],
        structured_content=sanitized_all(scrub_all(fields)),
    )


def _is_required(result: ToolResult, name: str) -> bool:
    return type(result).model_fields[name].is_required()


def _default(result: ToolResult, name: str) -> Any:
    return type(result).model_fields[name].get_default(call_default_factory=True)
