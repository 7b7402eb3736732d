"""A server over HTTP in a process of its own, as tests need it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2 as httpx
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

HELLO = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
JSON = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "0"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


@dataclass
class Served:
    """A server.

    Args:
        token: the one token; empty if it accepts those of an issuer.
        said: what it told the person at the terminal.
    """

    process: subprocess.Popen[str]
    url: str
    token: str
    home: Path
    said: str

    @asynccontextmanager
    async def client(self, mode: Any = "auto", token: str | None = None) -> AsyncIterator[Client]:
        headers = {"Authorization": f"Bearer {token or self.token}"}
        async with (
            httpx.AsyncClient(headers=headers, timeout=60) as http,
            Client(streamable_http_client(self.url, http_client=http), mode=mode) as client,
        ):
            yield client

    def headers(self, token: str | None = None) -> dict[str, str]:
        return {**JSON, "authorization": f"Bearer {token or self.token}"}

    def audit(self) -> str:
        return (self.home / "audit.jsonl").read_text("utf-8")


def serve(root: Path, *more: str, home: Path | None = None, **variables: str) -> Served:
    """Start one, and wait until it serves.

    Args:
        home: of its runs, if not that of the test.
        variables: of its environment.
    """
    command = [sys.executable, "-P", "-m", "backpropagate", "serve", "--http", "--port", "0"]
    command += ["--root", str(root), *more]
    environment = {**os.environ, **variables}
    if home is not None:
        environment |= {"BACKPROPAGATE_HOME": str(home), "BACKPROPAGATE_RUNTIME_DIR": f"{home}-runtime"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr
    said = ""
    while "Ctrl-C" not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    url, token = re.search(r"Serving at (\S+)\.", said), re.search(r"Bearer (\S+)\"", said)
    assert url
    home = Path(environment["BACKPROPAGATE_HOME"])
    return Served(process, url[1], token[1] if token else "", home, said)


@contextmanager
def serving(root: Path, *more: str, home: Path | None = None, **variables: str) -> Iterator[Served]:
    """`serve`, and end it."""
    server = serve(root, *more, home=home, **variables)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.communicate()


def modern(method: str, params: dict[str, Any], name: str | None = None) -> dict[str, Any]:
    """The arguments of a POST with a request of the newest era."""
    headers = {"mcp-protocol-version": "2026-07-28", "mcp-method": method}
    headers |= {"mcp-name": name} if name else {}
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": META}}
    return {"headers": headers, "json": body}
