"""What stands around every request: Host and Origin, the number of open ones, and a line in the audit log."""

from __future__ import annotations

import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from mcp.server.transport_security import TransportSecurityMiddleware, TransportSecuritySettings
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...training.errors import TooManyCallsError
from ..calls.audit import mark_as_audited, who_asks
from ..calls.audit_log import AuditLog
from ..calls.call_limit import OpenCalls
from ..principal import principal_of
from .errors import ApiError, api_error


class Around:
    """An ASGI application in front of the routes.

    Args:
        read_only: whether only requests that change nothing are passed on.
    """

    def __init__(
        self,
        app: ASGIApp,
        security: TransportSecuritySettings,
        calls: OpenCalls,
        log: AuditLog,
        *,
        read_only: bool,
    ) -> None:
        self._app, self._calls, self._log, self._read_only = app, calls, log, read_only
        self._security = TransportSecurityMiddleware(security)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state: dict[str, Any] = {}
        scope = {**scope, "state": state}
        request, began, status = Request(scope), time.monotonic(), HTTPStatus.INTERNAL_SERVER_ERROR.value
        mark_as_audited(scope)

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            with self._calls.one_of(principal_of(request)):
                await self._require_permitted(request)
                await self._app(scope, receive, watch)
        except TooManyCallsError as error:
            await api_error(error).response()(scope, receive, watch)
        except ApiError as error:
            await error.response()(scope, receive, watch)
        finally:
            self._record(request, state, status, time.monotonic() - began)

    async def _require_permitted(self, request: Request) -> None:
        """Refuse a page of another site, and what would change something where that is not permitted."""
        refused = await self._security.validate_request(request)
        if refused is not None:
            said = "This address is not the server's: the Host or the Origin of the request is another."
            raise ApiError(refused.status_code, said, "wrong_host")
        if self._read_only and request.method not in ("GET", "HEAD"):
            raise ApiError(HTTPStatus.FORBIDDEN, "This server only reads.", "read_only")

    def _record(self, request: Request, state: Mapping[str, Any], status: int, seconds: float) -> None:
        runs = {"runs": state["runs"]} if state.get("runs") else {}
        self._log.record(
            **who_asks(request),
            method=f"{request.method} {state.get('route', '(unknown)')}",
            **runs,
            outcome="ok" if status < HTTPStatus.BAD_REQUEST else state.get("code", f"http {status}"),
            duration_ms=round(seconds * 1000),
        )
