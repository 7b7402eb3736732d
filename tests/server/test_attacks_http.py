"""What others on the network, and pages in a browser of this machine, may try against a server over HTTP."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2 as httpx
import pytest
from authorization_server import AuthorizationServer, authorization_server
from http_server import HELLO, JSON, Served, modern, serving

pytestmark = pytest.mark.anyio

MOST_OPEN = 3


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    with serving(folder, home=folder / "home") as server:
        yield server


@pytest.fixture(scope="module")
def issuer() -> Iterator[AuthorizationServer]:
    with authorization_server() as server:
        yield server


@pytest.fixture
def crowded(tmp_path: Path, issuer: AuthorizationServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("BACKPROPAGATE_PRINCIPAL__CALLS", str(MOST_OPEN))
    with serving(tmp_path, "--oauth-issuer", issuer.url) as server:
        yield server


def sent(served: Served, head: str, body: bytes = b"") -> tuple[int, bytes]:
    """Status and text of the answer to what no HTTP library would send."""
    at = urlsplit(served.url)
    with socket.create_connection((at.hostname, at.port), timeout=30) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode("latin-1") + b"\r\n" + body)
        answer = b""
        while b"\r\n\r\n" not in answer:
            part = connection.recv(65536)
            if not part:
                break
            answer += part
    return int(answer.split(b" ")[1]) if answer else 0, answer


PING = json.dumps(HELLO).encode()


def head_of(served: Served, *lines: str, target: str = "/mcp") -> str:
    known = [
        f"POST {target} HTTP/1.1",
        f"Authorization: Bearer {served.token}",
        "Accept: application/json, text/event-stream",
        "Content-Type: application/json",
        f"Content-Length: {len(PING)}",
    ]
    return "\n".join([*known, *lines, ""])


async def test_a_name_that_was_rebound_to_this_machine_is_refused_whatever_the_port(served: Served) -> None:
    """DNS rebinding: a page's own name leads here, so that its requests count as of one origin."""
    port = urlsplit(served.url).port
    for host in (
        f"evil.example:{port}",
        "evil.example",
        f"127.0.0.1.evil.example:{port}",
        f"localhost.:{port}",
    ):
        async with httpx.AsyncClient() as browser:
            headers = {**served.headers(), "host": host, "origin": f"http://{host}"}
            assert (await browser.post(served.url, json=HELLO, headers=headers)).status_code == 421


def test_no_second_or_other_host_passes_for_the_servers(served: Served) -> None:
    own = urlsplit(served.url).netloc
    port = urlsplit(served.url).port
    for lines, target in [
        ((f"Host: {own}", "Host: evil.example"), "/mcp"),
        (("Host: evil.example", f"Host: {own}"), "/mcp"),
        ((f"Host: evil.example@{own}",), "/mcp"),
        ((f"Host: {own}@evil.example",), "/mcp"),
        (("Host: 127.0.0.1:1",), "/mcp"),
        (("Host: 127.0.0.1",), "/mcp"),
        ((f"Host: 0x7f000001:{port}",), "/mcp"),
        ((f"Host: [::ffff:127.0.0.1]:{port}",), "/mcp"),
        (("Host: evil.example", f"X-Forwarded-Host: {own}", f"Forwarded: host={own}"), "/mcp"),
        ((), "/mcp"),
        (("Host: evil.example",), f"http://{own}/mcp"),
    ]:
        status, _ = sent(served, head_of(served, *lines, target=target), PING)
        assert 400 <= status < 500, (lines, status)


def test_only_the_servers_own_origin_is_accepted(served: Served) -> None:
    own = urlsplit(served.url)
    for origin in (
        "null",
        "http://evil.example",
        f"https://{own.netloc}",
        f"http://{own.hostname}:{(own.port or 0) + 1}",
        f"http://{own.hostname}",
        f"http://{own.netloc}.evil.example",
        f"http://{own.netloc}@evil.example",
        "file://",
        "chrome-extension://abc",
    ):
        status, _ = sent(served, head_of(served, f"Host: {own.netloc}", f"Origin: {origin}"), PING)
        assert status == 403, origin
    status, answer = sent(
        served, head_of(served, f"Host: {own.netloc}", f"Origin: http://{own.netloc}"), PING
    )
    assert status not in (401, 403, 421), answer


async def test_a_page_can_send_nothing_that_a_browser_sends_without_asking(served: Served) -> None:
    """Forms and plain text need no preflight; and a preflight is not answered with consent."""
    at = served.url
    async with httpx.AsyncClient() as browser:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
            refused = await browser.post(at, content=PING, headers={**served.headers(), "content-type": kind})
            assert refused.status_code in (400, 415)
        asked = {"origin": "http://evil.example", "access-control-request-method": "POST"}
        answer = await browser.options(at, headers=asked)
        assert answer.status_code >= 400 and "access-control-allow-origin" not in answer.headers


async def test_the_token_counts_in_its_header_only_and_only_if_it_is_whole(served: Served) -> None:
    token = served.token
    async with httpx.AsyncClient() as client:
        for headers in (
            {"cookie": f"token={token}; authorization=Bearer {token}"},
            {"x-authorization": f"Bearer {token}"},
            {"authorization": f"Bearer {token[:-1]}"},
            {"authorization": f"Bearer {token}x"},
            {"authorization": f"Basic {token}"},
            {"authorization": token},
            {"authorization": "Bearer"},
            {"authorization": f"Bearer {token}, Bearer {token}"},
            {"proxy-authorization": f"Bearer {token}"},
        ):
            for at in (served.url, f"{served.url}?access_token={token}", f"{served.url}?token={token}"):
                refused = await client.post(at, json=HELLO, headers={**JSON, **headers})
                assert refused.status_code == 401, headers
                assert token not in refused.text


async def test_no_other_path_leads_to_the_tools(served: Served) -> None:
    async with httpx.AsyncClient() as client:
        for path in ("/", "/mcp/../mcp", "//mcp", "/MCP", "/mcp%2f", "/mcp/x", "/.well-known/mcp", "/docs"):
            at = served.url.replace("/mcp", path)
            assert (await client.post(at, json=HELLO, headers=JSON)).status_code == 401, path
            known = await client.post(at, json=HELLO, headers=served.headers())
            assert known.status_code in (307, 400, 404, 405), path


def test_a_request_cannot_hide_in_the_body_of_another(served: Served) -> None:
    own = urlsplit(served.url).netloc
    hidden = b"0\r\n\r\nPOST /mcp HTTP/1.1\r\nHost: " + own.encode() + b"\r\n\r\n"
    head = head_of(served, f"Host: {own}", "Transfer-Encoding: chunked")
    status, _ = sent(served, head, hidden)
    assert 400 <= status < 500


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_beyond_the_limit_is_refused_also_in_pieces_without_a_length(
    served: Served, declared: bool
) -> None:
    async def pieces() -> Any:
        for _ in range(80):
            yield b" " * 2**16

    async with httpx.AsyncClient(timeout=60) as client:
        content: Any = b" " * (80 * 2**16) if declared else pieces()
        refused = await client.post(served.url, content=content, headers=served.headers())
        assert refused.status_code == 413


async def test_what_is_nested_too_deeply_is_refused_at_every_place(served: Served) -> None:
    def nested(depth: int) -> str:
        return '{"a":' * depth + "1" + "}" * depth

    def call(arguments: str) -> str:
        params = f'{{"name":"train","arguments":{arguments}}}'
        return f'{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}'

    async with httpx.AsyncClient(timeout=60) as client:
        for body in (nested(100_000), call(nested(100_000)), "[" * 3_000_000, call(nested(900))):
            refused = await client.post(served.url, content=body, headers=served.headers())
            assert refused.status_code == 400
    async with served.client() as client:
        settings: Any = 1
        for _ in range(100):
            settings = {"a": settings}
        refused = await client.call_tool("train", {"dataset": "x", "settings": settings})
        assert refused.is_error and "nested more than" in str(refused.content)


async def test_one_body_is_one_message_in_utf_8(
    served: Served, issuer: AuthorizationServer, tmp_path: Path
) -> None:
    """So that no second message, and no other reading of the bytes, gets past the check of scopes."""
    push = {"name": "push_to_hub", "arguments": {"run_id": "x", "repo": "a/b"}}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": push}
    text = json.dumps(call)
    twice = text[:-1] + ', "method": "ping"}'
    reverse = '{"method": "ping", ' + text[1:]
    with serving(tmp_path, "--oauth-issuer", issuer.url) as server:
        headers = server.headers(issuer.token(server.url))
        async with httpx.AsyncClient() as client:
            for body in (
                json.dumps([call, call]).encode(),
                text.encode("utf-16"),
                text.encode("utf-16-le"),
                text.encode("utf-32"),
                b"\xef\xbb\xbf" + text.encode(),
                reverse.encode(),
                text.encode() + text.encode(),
            ):
                for more in ({}, {"mcp-protocol-version": "2026-07-28", "mcp-method": "ping"}):
                    refused = await client.post(server.url, content=body, headers={**headers, **more})
                    assert refused.status_code in (400, 403), (body[:40], refused.status_code, refused.text)
            # The last of two names counts, for the check as for the call: this is a ping.
            ping = await client.post(server.url, content=twice.encode(), headers=headers)
            assert "push_to_hub" not in ping.text


async def test_a_caller_has_so_many_open_calls_and_others_are_not_affected(
    crowded: Served, issuer: AuthorizationServer
) -> None:
    ada, eve = (crowded.headers(issuer.token(crowded.url, sub=name)) for name in ("ada", "eve"))
    listen = modern("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
    call = modern("tools/call", {"name": "list_runs", "arguments": {}}, "list_runs")

    async with httpx.AsyncClient(timeout=60) as client:

        async def called(headers: dict[str, str]) -> str:
            return (await client.post(crowded.url, **with_headers(call, headers))).text

        async with AsyncExitStack() as streams:
            for _ in range(MOST_OPEN):
                opened = client.stream("POST", crowded.url, **with_headers(listen, ada))
                assert (await streams.enter_async_context(opened)).status_code == 200
            assert "RUNTIME_TOO_MANY_CALLS" in await called(ada)
            refused = await client.post(crowded.url, **with_headers(modern("tools/list", {}), ada))
            assert f"{MOST_OPEN} of your requests are open" in refused.text
            assert "No runs" in await called(eve)
        # Streams that were closed count no longer.
        for _ in range(200):
            if "RUNTIME_TOO_MANY_CALLS" not in await called(ada):
                break
        else:
            pytest.fail("closed streams still count")


def with_headers(request: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
    return {**request, "headers": {**headers, **request["headers"]}}


@pytest.mark.skipif(os.name == "nt", reason="no /proc there")
async def test_no_secret_of_the_environment_or_the_token_is_in_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "hf_" + "Z9y8X7w6V5" * 4
    monkeypatch.setenv("HF_TOKEN", secret)
    with serving(tmp_path) as server:
        async with server.client() as client:
            said = ""
            for name, arguments in [
                ("gpu_status", {}),
                ("train", {"dataset": "/proc/self/environ"}),
                ("train", {"dataset": f"{tmp_path}/{secret}/x.jsonl"}),
                ("inspect_dataset", {"dataset": str(server.home / "http-token")}),
                ("get_run", {"run_id": secret}),
            ]:
                answer = await client.call_tool(name, arguments)
                said += str(answer.content) + str(answer.structured_content)
        assert secret not in said and server.token not in said
        assert secret not in server.audit() and server.token not in server.audit()
