"""An error of ours as the result of a tool call."""

from __future__ import annotations

from mcp.types import CallToolResult, TextContent

from ..tools.wording import words
from ..training.errors import BackpropagateError
from ..training.redact import scrub, scrub_all
from ..training.untrusted import sanitized, sanitized_all

ERROR = "backpropagate/error"
"""The entry of `_meta` with an error's record. Structured content would have to fit the output schema."""


def error_result(error: BackpropagateError) -> CallToolResult:
    """The text is `[CODE] message — hint`."""
    record = error.record().model_dump(mode="json", exclude_none=True)
    return CallToolResult(
        content=[TextContent(type="text", text=sanitized(scrub(error.sentence(words))))],
        is_error=True,
        _meta={ERROR: sanitized_all(scrub_all(record))},
    )
