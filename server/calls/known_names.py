"""Refuses names that the server has not: prompts by a protocol error, tools by one that a model can read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mcp import MCPError
from mcp.server.context import CallNext, HandlerResult, ServerMiddleware, ServerRequestContext
from mcp.types import INVALID_PARAMS

from ...training.errors import InputError
from ...training.nearest_name import nearest
from ...training.untrusted import quoted
from ..error_result import error_result


def require_known_prompt(*known: str) -> ServerMiddleware[Any]:
    """Refuses other names and missing arguments; the SDK would answer as if the server had failed."""

    async def check(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        if ctx.method != "prompts/get":
            return await call_next(ctx)
        name = (ctx.params or {}).get("name")
        if name is not None and name not in known:
            raise MCPError(INVALID_PARAMS, f"There is no prompt {quoted(name)}; there is {', '.join(known)}.")
        try:
            return await call_next(ctx)
        except ValueError as error:  # the SDK's, of arguments
            raise MCPError(INVALID_PARAMS, f"{error}.") from error

    return check


def require_known_tool(known: Sequence[str], *, read_only: bool) -> ServerMiddleware[Any]:
    """Refuses other names with the nearest one, or with all."""
    has = "This server only reads. It has" if read_only else "There are"

    async def check(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        name = (ctx.params or {}).get("name") if ctx.method == "tools/call" else None
        if not isinstance(name, str) or name in known:
            return await call_next(ctx)
        close = nearest(name, known)
        hint = f"Did you mean {close}?" if close else f"{has} {', '.join(known)}."
        return error_result(InputError(f"There is no tool {quoted(name)}.", hint=hint))

    return check
