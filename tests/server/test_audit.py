"""The audit log: who called what and how it ended, and never what they said."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from authorization_server import AuthorizationServer, authorization_server
from http_server import HELLO, JSON, modern, serving
from mcp import Client

from backpropagate.server.app import build_server
from backpropagate.server.calls.audit import REFUSED_A_MINUTE, AuditedRefusals
from backpropagate.server.calls.audit_log import AuditLog
from backpropagate.training.service import TrainingService

pytestmark = pytest.mark.anyio

SECRET = "hf_" + "a1B2c3D4e5" * 4


@pytest.fixture(scope="module")
def issuer() -> Iterator[AuthorizationServer]:
    with authorization_server() as server:
        yield server


def lines(home: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (home / "audit.jsonl").read_text("utf-8").splitlines()]


async def test_a_call_over_a_pipe_is_written_down_without_what_it_said(
    service: TrainingService, home: Path
) -> None:
    async with Client(build_server(service)) as client:
        await client.list_tools()
        await client.call_tool("list_runs", {"limit": 3})
        await client.call_tool("get_run", {"run_id": "20261122T090712.345Z-smollm2-a7f3"})
        await client.call_tool("train", {"dataset": f"/data/{SECRET}", "questions": ["my diary"], SECRET: 1})
        await client.call_tool(SECRET, {})
    found = lines(home)
    assert [line["outcome"] for line in found[:3]] == ["ok", "INPUT_RUN_NOT_FOUND", "INPUT_VALIDATION_FAILED"]
    assert found[0] | {"time": 0, "duration_ms": 0} == {
        "time": 0,
        "who": "owner",
        "over": "stdio",
        "method": "tools/call",
        "tool": "list_runs",
        "arguments": ["limit"],
        "outcome": "ok",
        "duration_ms": 0,
    }
    assert found[1]["runs"] == ["20261122T090712.345Z-smollm2-a7f3"]
    assert found[2]["arguments"] == ["(other)", "dataset", "questions"]
    assert found[3]["tool"] == "(unknown)"
    written = (home / "audit.jsonl").read_text()
    assert SECRET not in written and "diary" not in written
    assert os.name == "nt" or stat.S_IMODE((home / "audit.jsonl").stat().st_mode) == 0o600


async def test_refused_requests_are_written_down_with_where_they_came_from(
    tmp_path: Path, issuer: AuthorizationServer
) -> None:
    with serving(tmp_path, "--oauth-issuer", issuer.url) as server:
        good, stranger = issuer.token(server.url), issuer.token("https://elsewhere.example")
        async with httpx.AsyncClient() as client:
            await client.post(server.url, json=HELLO, headers=JSON)
            await client.post(server.url, json=HELLO, headers=server.headers(stranger))
            known = server.headers(good)
            await client.post(server.url, json=HELLO, headers={**known, "host": "evil.example:80"})
            await client.post(server.url, json=HELLO, headers={**known, "origin": "http://evil.example"})
            await client.post(server.url, content=b"[" * 100_000, headers=known)
            call = modern("tools/call", {"name": "push_to_hub", "arguments": {}}, "push_to_hub")
            await client.post(server.url, **{**call, "headers": {**known, **call["headers"]}})
        async with server.client(token=good) as client:
            await client.call_tool("list_runs", {})
        found = lines(server.home)
    outcomes = [line["outcome"] for line in found]
    assert outcomes == ["http 401", "http 401", "http 421", "http 403", "http 400", "http 403", "ok"]
    assert all(line["from"] == "127.0.0.1" and line["over"] == "http" for line in found)
    assert found[2]["host"] == "evil.example:80" and found[3]["origin"] == "http://evil.example"
    assert [line["who"] for line in found[:2]] == ["unknown", "unknown"]
    assert found[-1]["who"] == f"{issuer.url} ada"
    assert good.split(".")[2] not in json.dumps(found)


async def test_a_flood_of_refused_requests_does_not_turn_the_log_over(home: Path) -> None:
    async def refuse(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 401})

    async def ignore(_message: Any) -> None: ...

    app: Any = AuditedRefusals(refuse, AuditLog(home))
    scope = {"type": "http", "method": "POST", "headers": [(b"host", b"a\x1b[31m")], "client": None}
    for _ in range(REFUSED_A_MINUTE * 5):
        await app(scope, None, ignore)
    found = lines(home)
    assert REFUSED_A_MINUTE <= len(found) <= 2 * REFUSED_A_MINUTE  # the minute may have turned
    assert "\x1b" not in found[0]["host"]


def test_a_full_log_begins_anew_and_no_line_is_lost(home: Path) -> None:
    def write(writer: int) -> None:
        log = AuditLog(home, full_bytes=2_000)  # as in a process of its own
        for number in range(20):
            log.record(writer=writer, number=number)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    files = sorted(home.glob("audit*.jsonl"))
    assert len(files) > 1
    found = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert len({(line["writer"], line["number"]) for line in found}) == 80 == len(found)


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_in_the_place_of_the_log_is_not_followed(home: Path, tmp_path: Path) -> None:
    home.mkdir(mode=0o700)
    (home / "audit.jsonl").symlink_to(tmp_path / "elsewhere")
    AuditLog(home).record(outcome="ok")
    assert not (tmp_path / "elsewhere").exists()
