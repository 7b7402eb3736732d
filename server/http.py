"""Serves over streamable HTTP, to clients of both eras of the protocol."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from mcp.server import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from starlette.types import ASGIApp, Receive, Scope, Send

from ..training.config.settings import load_settings
from ..training.files.paths import PathPolicy
from ..training.logs import configure_logging
from ..training.service import TrainingService
from ..training.telemetry import configure_telemetry
from .access.refusal import is_openai
from .admission import Guard, admission
from .app import build_server
from .calls.audit import AuditedRefusals
from .calls.audit_log import AuditLog
from .http_options import PATH, HttpOptions, require_protection
from .listen import bind, serve_at


def serve_http(options: HttpOptions, say: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; runs continue in their own processes.

    Args:
        say: tells the person at the terminal the address and a client's configuration.

    Raises:
        InputError: another machine could reach the server without TLS, or a file is not usable.
        RuntimeFailure: the port is taken, or the address is none of this machine's.
    """
    require_protection(options)
    settings = load_settings()
    configure_logging(settings)
    configure_telemetry()
    admitted = admission(options, settings.home)
    listening = bind(options.host, options.port)
    port = listening.getsockname()[1]
    service = TrainingService(settings)
    server = build_server(service, options.roots, user_home=False, read_only=options.read_only)
    guard, welcome = admitted(port)
    log = AuditLog(settings.home)
    security = transport_security(options, port)
    beside = _openai(service, options, security) if options.openai else None
    say(welcome)
    run_app(server, options, listening, lambda app: AuditedRefusals(guard(app), log), security, beside)


def _openai(service: TrainingService, options: HttpOptions, security: TransportSecuritySettings) -> ASGIApp:
    from .openai.app import openai_app

    paths = PathPolicy.for_assistant(options.roots, service.settings.home, user_home=False)
    return openai_app(service, paths, security, read_only=options.read_only)


def _with_openai(app: ASGIApp, openai: ASGIApp) -> ASGIApp:
    """MCP's application, and OpenAI's interface beside it."""

    async def choose(scope: Scope, receive: Receive, send: Send) -> None:
        chosen = openai if scope["type"] == "http" and is_openai(scope) else app
        await chosen(scope, receive, send)

    return choose


def run_app(
    server: MCPServer[Any],
    options: HttpOptions,
    listening: socket.socket,
    guard: Guard,
    security: TransportSecuritySettings,
    openai: ASGIApp | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        guard: gives the application that passes on only what is permitted.
        openai: the application of OpenAI's interface, if it is offered.
    """
    app: ASGIApp = server.streamable_http_app(
        streamable_http_path=PATH, host=options.host, transport_security=security
    )
    if openai is not None:
        app = _with_openai(app, openai)
    serve_at(listening, guard(app), options.certificate, options.key)


def transport_security(options: HttpOptions, port: int) -> TransportSecuritySettings:
    """Exact names and ports: a page of another site that resolves its name to this machine is refused."""
    names = ["127.0.0.1", "localhost", "[::1]"] if options.is_local else []
    own = f"[{options.host}]" if ":" in options.host else options.host
    hosts = dict.fromkeys(f"{name}:{port}" for name in [*names, own])
    hosts |= dict.fromkeys(options.hosts)
    scheme = options.url(port).partition("://")[0]
    return TransportSecuritySettings(
        allowed_hosts=list(hosts), allowed_origins=[f"{scheme}://{host}" for host in hosts]
    )
