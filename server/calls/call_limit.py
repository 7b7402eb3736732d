"""At most so many open requests of each caller over HTTP, so that nobody keeps the server from others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any

from mcp import MCPError
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext

from ...training.errors import TooManyCallsError
from ..error_result import error_result
from ..principal import http_request, principal_of

BUSY = -32000
"""JSON-RPC's first code for errors of a server's own."""


class OpenCalls:
    """The open requests of each principal.

    Args:
        most: of one principal.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: Counter[str | None] = Counter()

    @contextmanager
    def one_of(self, principal: str | None) -> Generator[None]:
        """Count a request until it has been answered.

        Raises:
            TooManyCallsError: the principal has too many open ones.
        """
        if self._open[principal] >= self._most:
            raise TooManyCallsError(
                f"{self._most} of your requests are open, the most that may be.",
                hint="Wait until one of them has been answered. Runs go on without an open call.",
            )
        self._open[principal] += 1
        try:
            yield
        finally:
            self._open[principal] -= 1


class CallLimit:
    """Middleware of the MCP server.

    Args:
        most: open requests of one principal.
    """

    def __init__(self, most: int) -> None:
        self._calls = OpenCalls(most)

    async def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        if http_request(ctx.request) is None or ctx.request_id is None:
            return await call_next(ctx)  # over a pipe there is one caller; a notification is no call
        with ExitStack() as counted:
            try:
                counted.enter_context(self._calls.one_of(principal_of(ctx.request)))
            except TooManyCallsError as error:
                return _refused(ctx.method, error)
            return await call_next(ctx)


def _refused(method: str, error: TooManyCallsError) -> HandlerResult:
    if method == "tools/call":
        return error_result(error)
    raise MCPError(BUSY, error.sentence())
