"""The server over HTTP: many clients of both eras with the token, and nobody else."""

from __future__ import annotations

import os
import signal
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import httpx2 as httpx
import pytest
from facts import write_dataset
from http_server import HELLO, JSON, Served, modern, serve, serving
from mcp.types import TextContent

from backpropagate.cli.main import run as command
from backpropagate.training.runs.store import RunStore

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def served(root: Path, tiny_model: Path) -> Iterator[Served]:
    with serving(root, "--root", str(tiny_model), home=root / "home") as server:
        yield server


async def test_clients_of_both_eras_train_with_progress_where_only_the_roots_are_open(
    served: Served, root: Path, tiny_model: Path
) -> None:
    """Equal requests at the same time are one run; neither server nor worker takes the home for permitted."""
    dataset, model = str(write_dataset(root / "facts.jsonl")), str(tiny_model)
    request: dict[str, Any] = {"dataset": dataset, "model": model, "steps": 3, "batch_size": 2, "wait_s": 600}
    runs: list[str] = []

    async def train(mode: str) -> None:
        told: list[str] = []

        async def progress(_done: float, _total: float | None, message: str | None) -> None:
            told.append(message or "")

        async with served.client(mode=mode) as client:
            trained = await client.call_tool("train", request, progress_callback=progress)
            assert not trained.is_error and trained.structured_content
            assert trained.structured_content["status"] == "completed" and told
            runs.append(trained.structured_content["run_id"])

    async with anyio.create_task_group() as calls:
        calls.start_soon(train, "legacy")
        calls.start_soon(train, "2026-07-28")
    async with served.client(mode="legacy") as client:
        listed = await client.call_tool("list_runs", {})
        assert listed.structured_content
        assert [run["run_id"] for run in listed.structured_content["runs"]] == [*{*runs}]
        elsewhere = {"dataset": str(Path.home() / "some-file.jsonl"), "model": model}
        refused = await client.call_tool("train", elsewhere)
        assert refused.is_error and isinstance(refused.content[0], TextContent)
        assert "[INPUT_PATH_FORBIDDEN]" in refused.content[0].text
        assert "outside the folders that this server may access" in refused.content[0].text
    assert RunStore(served.home).find(runs[0]).spec().roots == ("only", str(root), model)


async def test_whoever_has_no_token_or_another_is_told_where_it_is(served: Served) -> None:
    async with httpx.AsyncClient() as anyone:
        for headers in ({}, {"authorization": "Bearer " + "x" * 43}, {"authorization": "Basic abc"}):
            refused = await anyone.post(served.url, json=HELLO, headers={**JSON, **headers})
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == 'Bearer realm="backpropagate"'
            assert str(served.home / "http-token") in refused.json()["error_description"]
            assert served.token not in refused.text
        in_url = await anyone.post(f"{served.url}?access_token={served.token}", json=HELLO, headers=JSON)
        assert in_url.status_code == 401
        # A client that looks for OAuth finds none, and is not sent to a server that does not exist.
        metadata = await anyone.get(served.url.replace("/mcp", "/.well-known/oauth-protected-resource/mcp"))
        assert metadata.status_code == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example:80"}, 421),
        ({"host": "127.0.0.1"}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
    ],
)
async def test_a_page_of_another_site_gets_nothing(
    served: Served, headers: dict[str, str], status: int
) -> None:
    known = {**JSON, "authorization": f"Bearer {served.token}"}
    async with httpx.AsyncClient() as browser:
        assert (
            await browser.post(served.url, json=HELLO, headers={**known, **headers})
        ).status_code == status


async def test_what_is_too_large_or_too_deep_is_refused_and_the_server_goes_on(served: Served) -> None:
    known = {**JSON, "authorization": f"Bearer {served.token}"}
    async with httpx.AsyncClient() as client:
        assert (await client.post(served.url, content=b" " * (5 << 20), headers=known)).status_code == 413
        deep = b'{"jsonrpc":"2.0","id":1,"method":"ping","params":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
        assert (await client.post(served.url, content=deep, headers=known)).status_code == 400
    async with served.client() as client:
        assert (await client.list_tools()).tools


@pytest.mark.skipif(os.name == "nt", reason="no signals and rights of this kind")
async def test_the_server_ends_with_open_streams_and_keeps_its_token(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = serve(tmp_path)
    listen = modern("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
    async with (
        httpx.AsyncClient(timeout=60, headers=server.headers()) as client,
        client.stream("POST", server.url, **listen) as stream,
    ):
        assert stream.status_code == 200
        server.process.send_signal(signal.SIGTERM)
        with suppress(httpx.HTTPError):
            await stream.aread()
    _, said = server.process.communicate(timeout=30)
    assert "Traceback" not in said
    file = server.home / "http-token"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = serve(tmp_path)
    assert again.token == server.token
    again.process.kill()
    again.process.communicate()
    file.chmod(0o644)
    assert command(["serve", "--http", "--port", "0"]) == 2
    assert "can be read by other users" in capsys.readouterr().err


async def test_a_server_that_only_reads_has_no_tool_that_changes_anything(tmp_path: Path) -> None:
    server = serve(tmp_path, "--read-only")
    async with server.client() as client:
        tools = (await client.list_tools()).tools
        assert {tool.name for tool in tools} >= {"list_runs", "get_run", "gpu_status"}
        assert all(tool.annotations and tool.annotations.read_only_hint for tool in tools)
        refused = await client.call_tool("train", {"dataset": "x"})
        assert refused.is_error
    server.process.kill()
    server.process.communicate()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", "0.0.0.0"], "can be reached from other machines"),
        (["--host", "0.0.0.0", "--behind-proxy"], "no name by which clients reach it"),
        (["--tls-cert", "a.pem"], "TLS needs a certificate and its key"),
        (["--tls-cert", "a.pem", "--tls-key", "b.pem"], "a.pem does not exist"),
        (["--host", "203.0.113.7", "--behind-proxy"], "cannot be served"),
    ],
)
def test_what_cannot_be_served_safely_is_refused(
    options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["serve", "--http", "--port", "0", *options]) in (1, 2)
    assert said in " ".join(capsys.readouterr().err.split())


def test_files_that_are_no_certificate_are_refused_before_anything_is_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_text("rubbish")
    files = ["--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem")]
    assert command(["serve", "--http", "--port", "0", *files]) == 1
    said = capsys.readouterr().err
    assert "are no pair of PEM files" in said and "Serving at" not in said


def test_a_port_that_is_taken_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        assert command(["serve", "--http", "--port", port]) == 2
    assert f"127.0.0.1:{port} cannot be served" in capsys.readouterr().err


def test_an_option_of_http_is_not_ignored_without_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["serve", "--port", "1"]) == 1
    assert "add --http" in capsys.readouterr().err
