"""Writes down each call of a server, and each HTTP request that was refused before it became one."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

import anyio
from mcp import MCPError
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ...tools import TOOLS
from ...training.untrusted import one_line
from ..error_result import ERROR
from ..principal import PRINCIPAL, http_request, principal_of
from .audit_log import AuditLog

CALLS = ("tools/call", "resources/read", "tasks/cancel", "tasks/update", "prompts/get")
"""Methods that are written down; the others list what there is, or belong to the protocol."""

RUN_ID = re.compile(r"\d{8}T\d{6}\.\d{3}Z-[a-z0-9.-]{1,40}-[0-9a-f]{4}")
ARGUMENT = re.compile(r"[a-z][a-z0-9_]{0,39}")
TOOL_NAMES = frozenset(tool.name for tool in TOOLS)
REFUSED_A_MINUTE = 60  # lines, so that nobody without a token can make the log turn over
AUDITED = "backpropagate.audited"
"""The entry of an HTTP request's scope that `mark_as_audited` writes."""

SHOWN = 100  # characters of a name that a client sent


class Audit:
    """Middleware of the MCP server: a line for each call.

    Never a value of an argument but the ids of runs: the others may be secrets, or text of somebody's data.
    """

    def __init__(self, log: AuditLog) -> None:
        self._log = log

    async def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        if not ctx.method.startswith(CALLS):
            return await call_next(ctx)
        began = time.monotonic()
        outcome, answer = "cancelled", dict[str, Any]()
        try:
            result = await call_next(ctx)
            answer = on_the_wire(result)
            outcome = outcome_of(answer)
            return result
        except MCPError as error:
            outcome = str(error.error.code)
            raise
        except anyio.get_cancelled_exc_class():
            raise
        except Exception as error:
            outcome = type(error).__name__
            raise
        finally:
            duration_ms = round((time.monotonic() - began) * 1000)
            self._log.record(**_who(ctx), **_what(ctx, answer), outcome=outcome, duration_ms=duration_ms)


def on_the_wire(result: HandlerResult) -> dict[str, Any]:
    """The answer as the client gets it; a middleware's own answer is not in this form yet."""
    return result.model_dump(by_alias=True) if isinstance(result, BaseModel) else result or {}


def outcome_of(answer: Mapping[str, Any]) -> str:
    """`ok`, or the code of the error."""
    if not answer.get("isError"):
        return "ok"
    meta: dict[str, Any] = answer.get("_meta") or {}
    return meta.get(ERROR, {}).get("code", "error")


def _who(ctx: ServerRequestContext[Any, Any]) -> dict[str, str]:
    request = http_request(ctx.request)
    return {"who": "owner", "over": "stdio"} if request is None else who_asks(request)


def who_asks(request: Request[Any]) -> dict[str, str]:
    """The sender of an HTTP request, for a line of the log."""
    return {"who": principal_of(request) or "owner", "over": "http", "from": _address(request.scope)}


def mark_as_audited(scope: Scope) -> None:
    """Say that a request gets a line of its own, also if it is refused."""
    scope.get(AUDITED, []).append(True)


def _what(ctx: ServerRequestContext[Any, Any], answer: Mapping[str, Any]) -> dict[str, Any]:
    params: Mapping[str, Any] = ctx.params or {}
    given: Any = params.get("arguments")
    arguments: dict[str, Any] = given if isinstance(given, dict) else {}  # pyright: ignore[reportUnknownVariableType]
    what: dict[str, Any] = {"method": ctx.method}
    if ctx.method == "tools/call":
        what["tool"] = tool_name(params)
        what["arguments"] = sorted({name if ARGUMENT.fullmatch(name) else "(other)" for name in arguments})
    told: dict[str, Any] = answer.get("structuredContent") or {}
    named = (
        params.get("uri"),
        told.get("run_id"),
        answer.get("statusMessage"),
    )  # of a resource, a call, a task
    runs = RUN_ID.findall(" ".join([_texts(arguments), *map(str, named)]))
    return {**what, "runs": sorted(set(runs))} if runs else what


def tool_name(params: Mapping[str, Any] | None) -> str:
    """The name of a tool that there is: another name could be any text."""
    name = (params or {}).get("name")
    return name if name in TOOL_NAMES else "(unknown)"


def _texts(arguments: Mapping[str, Any]) -> str:
    """The arguments that can name a run: not the text of questions or data."""
    return " ".join(value for value in arguments.values() if isinstance(value, str) and len(value) <= 4096)


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else "unknown"


class AuditedRefusals:
    """An ASGI application in front of the others: a line for each request that they refuse."""

    def __init__(self, app: ASGIApp, log: AuditLog) -> None:
        self._app = app
        self._log = log
        self._minute, self._lines, self._left_out = 0, 0, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        audited: list[bool] = []  # the same list in every copy of the scope

        async def watch(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400 and not audited:
                self._note(scope, message["status"])
            await send(message)

        scope = {**scope, AUDITED: audited}
        await self._app(scope, receive, watch if scope["type"] == "http" else send)

    def _note(self, scope: Scope, status: int) -> None:
        minute = int(time.monotonic() // 60)
        if minute != self._minute:
            self._minute, self._lines = minute, 0
        if self._lines >= REFUSED_A_MINUTE:
            self._left_out += 1
            return
        self._lines += 1
        more = {"left_out_before": self._left_out} if self._left_out else {}
        self._left_out = 0
        self._log.record(**_refused(scope), outcome=f"http {status}", **more)


def _refused(scope: Scope) -> dict[str, str]:
    headers = Headers(scope=scope)
    sent = {name: one_line(headers[name], SHOWN) for name in ("host", "origin") if name in headers}
    who = scope.get(PRINCIPAL, "unknown")
    return {"who": who, "over": "http", "from": _address(scope), "method": scope["method"], **sent}
