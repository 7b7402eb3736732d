"""The product's server with the fixtures that the official conformance suite asks for by name.

    python tests/protocol/conformance_server.py HOME

Transport, Host and Origin checks, token, middleware, extensions, completion and subscriptions are those of
`backprop serve --http`. Tools, prompts and resources are fixtures, since the suite calls no others. The suite
cannot send a token, so it is added on the way in, as a proxy would.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from fixture_contents import add_resources, content_prompts, content_tools
from fixture_questions import question_prompts, question_tools
from fixture_tasks import MemoryTasks, task_tools
from mcp.server import MCPServer
from mcp.server.subscriptions import InMemorySubscriptionBus
from starlette.types import ASGIApp, Receive, Scope, Send

from backpropagate.server.access.bearer import Bearer, token_in
from backpropagate.server.calls.audit import Audit, AuditedRefusals
from backpropagate.server.calls.audit_log import AuditLog
from backpropagate.server.calls.call_limit import CallLimit
from backpropagate.server.calls.known_names import require_known_prompt
from backpropagate.server.dashboard.mcp_app import Dashboard
from backpropagate.server.http import HttpOptions, run_app, transport_security
from backpropagate.server.listen import bind
from backpropagate.server.resources.run_updates import RunUpdates
from backpropagate.server.resources.serve_runs import serve_runs
from backpropagate.server.skill import Skills
from backpropagate.server.tasks.protocol import Tasks
from backpropagate.training.config.settings import load_settings
from backpropagate.training.service import TrainingService


def fixture_server(service: TrainingService) -> MCPServer[Any]:
    prompts = [*content_prompts(), *question_prompts()]
    bus = InMemorySubscriptionBus()

    @asynccontextmanager
    async def lifespan(_server: MCPServer[Any]) -> AsyncGenerator[RunUpdates]:
        async with anyio.create_task_group() as background:
            yield RunUpdates(service, background, bus)
            background.cancel_scope.cancel()

    server: MCPServer[Any] = MCPServer(
        "backpropagate-fixtures",
        version="0",
        lifespan=lifespan,
        subscriptions=bus,
        extensions=[Skills(), Dashboard(), Tasks(MemoryTasks())],
        middleware=[
            Audit(AuditLog(service.settings.home)),
            CallLimit(service.settings.principal.calls),
            require_known_prompt(*(prompt.name for prompt in prompts)),
        ],
        tools=[*content_tools(), *question_tools(), *task_tools()],
    )
    for prompt in prompts:
        server.add_prompt(prompt)
    add_resources(server)
    serve_runs(server, service)
    return server


class WithToken:
    """Adds the token to each request."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._header = (b"authorization", f"Bearer {token}".encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "headers": [*scope["headers"], self._header]}
        await self._app(scope, receive, send)


def main(home: Path) -> None:
    token = token_in(home / "http-token")
    options = HttpOptions(port=0)
    listening = bind(options.host, options.port)

    def guard(app: ASGIApp) -> ASGIApp:
        guarded = AuditedRefusals(Bearer(app, token, "It is in the home of runs."), AuditLog(home))
        return WithToken(guarded, token)

    port: int = listening.getsockname()[1]
    print(f"http://127.0.0.1:{port}/mcp", flush=True)
    server = fixture_server(TrainingService(load_settings()))
    run_app(server, options, listening, guard, transport_security(options, port))


if __name__ == "__main__":
    os.environ["BACKPROPAGATE_HOME"] = sys.argv[1]
    main(Path(sys.argv[1]))
