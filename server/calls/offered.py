"""Which tools a next step may name: those that this server has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mcp.server.context import CallNext, HandlerResult, ServerMiddleware, ServerRequestContext

from ...tools.wording import OFFERED


def only_offered(names: Sequence[str]) -> ServerMiddleware[Any]:
    """Words the next steps of every answer for a server with these tools."""

    async def within(ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        before = OFFERED.set(frozenset(names))
        try:
            return await call_next(ctx)
        finally:
            OFFERED.reset(before)

    return within
