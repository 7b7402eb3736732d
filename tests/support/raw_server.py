"""`backprop serve` over a pipe or over HTTP, spoken to in JSON: what no client library adds or hides."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2 as httpx

VERSION = "2026-07-28"
TASKS = {"extensions": {"io.modelcontextprotocol/tasks": {}}}


def envelope(capabilities: dict[str, Any] | None = None) -> dict[str, Any]:
    """The `_meta` of a request of the newest protocol."""
    return {
        "io.modelcontextprotocol/protocolVersion": VERSION,
        "io.modelcontextprotocol/clientInfo": {"name": "raw", "version": "0"},
        "io.modelcontextprotocol/clientCapabilities": capabilities or {},
    }


def command(roots: tuple[Path, ...], *options: str) -> list[str]:
    permitted = [word for root in roots for word in ("--root", str(root))]
    return [sys.executable, "-P", "-m", "backpropagate", "serve", *options, *permitted]


class RawServer:
    """A server process; each request waits for its answer.

    Attributes:
        heard: every message that the server has sent.
    """

    def __init__(self, *roots: Path) -> None:
        self.process = subprocess.Popen(
            command(roots),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(os.environ),
        )
        self.heard: list[dict[str, Any]] = []
        self._requests = 0

    def ask(self, method: str, params: dict[str, Any] | None = None, meta: Any = None) -> dict[str, Any]:
        """The whole answer: with `result` or `error`."""
        self._requests += 1
        params = {**(params or {}), "_meta": envelope(TASKS) if meta is None else meta}
        self.tell({"jsonrpc": "2.0", "id": self._requests, "method": method, "params": params})
        assert self.process.stdout
        while True:
            self.heard.append(json.loads(self.process.stdout.readline()))
            if self.heard[-1].get("id") == self._requests:
                return self.heard[-1]

    def tell(self, message: dict[str, Any]) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def call(self, name: str, arguments: dict[str, Any], meta: Any = None) -> dict[str, Any]:
        return self.ask("tools/call", {"name": name, "arguments": arguments}, meta)["result"]

    def kill(self) -> None:
        """As a crash would: nothing is said or written any more."""
        self.process.kill()
        self.process.communicate()

    def __enter__(self) -> RawServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class RawHttp:
    """The same over HTTP, for whoever has a token.

    Args:
        url: of the endpoint.
    """

    def __init__(self, url: str, token: str | None) -> None:
        self.url = url
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._client = httpx.Client(timeout=60, headers=headers)

    def ask(
        self,
        method: str,
        params: dict[str, Any] | None = None,
        meta: Any = None,
        headers: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        """The whole answer, of JSON or of the last message of a stream."""
        params = params or {}
        body = {**params, "_meta": envelope(TASKS) if meta is None else meta}
        sent = {
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": VERSION,
            "mcp-method": method,
            "mcp-name": params.get("taskId") or params.get("name") or "",
            **(headers or {}),
        }
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": body}
        answer = self._client.post(self.url, json=request, headers=sent)
        if answer.headers["content-type"].startswith("text/event-stream"):
            lines = [line for line in answer.text.splitlines() if line.startswith("data:")]
            return json.loads(lines[-1].removeprefix("data:"))
        return answer.json()

    def call(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return self.ask("tools/call", {"name": name, "arguments": arguments})["result"]

    def close(self) -> None:
        self._client.close()


class HttpServer(RawHttp):
    """A server process on a free port, asked with the token of its home of runs."""

    def __init__(self, *roots: Path) -> None:
        self.process = subprocess.Popen(
            command(roots, "--http", "--port", "0"), stderr=subprocess.PIPE, text=True, env=dict(os.environ)
        )
        said = self._welcome()
        url, token = re.search(r"Serving at (\S+)\.", said), re.search(r"Bearer (\S+)\"", said)
        assert url and token, said
        super().__init__(url[1], token[1])

    def _welcome(self) -> str:
        assert self.process.stderr
        said = ""
        while "Ctrl-C" not in said:
            line = self.process.stderr.readline()
            assert line, said
            said += line
        return said

    def __enter__(self) -> HttpServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self.process.kill()
        self.process.communicate()
