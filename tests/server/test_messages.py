"""What a client may write: every line gets an answer, and the server ends with its client."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
PING = b'{"jsonrpc":"2.0","id":7,"method":"ping"}\n'
LONG = b"x" * 100_000


class Server:
    """A server whose stdin takes any bytes."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "backpropagate", "serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def write(self, line: bytes) -> None:
        assert self.process.stdin
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def answer(self, line: bytes) -> dict[str, Any]:
        assert self.process.stdout
        self.write(line)
        return json.loads(self.process.stdout.readline())

    def end(self) -> int:
        assert self.process.stdin
        with self.process:  # closes the pipes
            self.process.stdin.close()
            return self.process.wait(60)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BACKPROPAGATE_HOME", str(tmp_path_factory.mktemp("home")))
        started = Server()
    assert "result" in started.answer(json.dumps(INITIALIZE).encode() + b"\n")
    yield started
    assert started.end() == 0


@pytest.mark.parametrize(
    ("line", "code", "request_id"),
    [
        (LONG, -32700, None),
        (b'{"jsonrpc": "2.0", "id": 5, "meth', -32700, None),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, -32700, None),
        (b'{"jsonrpc":"2.0","id":7,"method":"\xff\xfe"}', -32700, 7),
        (b'{"jsonrpc":"2.0","id":7,"method":"ping","params":{"a":"\\ud800"}}', -32700, 7),
        (b"[1,2,3]", -32600, None),
        (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', -32600, None),
        (b"5", -32600, None),
        (b'"x"', -32600, None),
        (b"{}", -32600, None),
        (b'{"id":7,"method":"ping"}', -32600, 7),
        (b'{"jsonrpc":"1.0","id":"a","method":"ping"}', -32600, "a"),
        (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', -32600, None),
        (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', -32600, None),
        (b'{"jsonrpc":"2.0","id":{},"method":"ping"}', -32600, None),
        (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', -32600, None),
        (b'{"jsonrpc":"2.0","id":7,"method":"ping","params":[1]}', -32600, 7),
        (b'{"jsonrpc":"2.0","method":"x","params":{"a":' + b"9" * 5000 + b"}}", -32700, None),
    ],
)
def test_a_line_that_is_no_message_is_answered(
    line: bytes, code: int, request_id: str | int | None, server: Server
) -> None:
    answer = server.answer(line + b"\n")
    assert (answer["error"]["code"], answer["id"]) == (code, request_id), answer
    assert len(answer["error"]["message"]) < 200
    assert server.answer(PING) == {"jsonrpc": "2.0", "id": 7, "result": {}}


@pytest.mark.parametrize("line", [b"\xef\xbb\xbf" + PING, PING.replace(b"\n", b"\r\n"), b"\n  \n" + PING])
def test_a_byte_order_mark_and_empty_lines_are_passed_over(line: bytes, server: Server) -> None:
    assert server.answer(line)["result"] == {}


def test_an_argument_with_a_name_of_megabytes_is_refused_at_once(server: Server) -> None:
    call = {"name": "train", "arguments": {"dataset": "/x", "x" * 5_000_000: 1}}
    message = {"jsonrpc": "2.0", "id": 8, "method": "tools/call", "params": call}
    answer = server.answer(json.dumps(message).encode() + b"\n")
    text = answer["result"]["content"][0]["text"]
    assert text.startswith("[INPUT_VALIDATION_FAILED] train has no argument") and len(text) < 1000


@pytest.mark.slow
def test_a_server_whose_client_never_reads_ends_with_stdin(home: Path) -> None:
    silent = Server()
    silent.write(json.dumps(INITIALIZE).encode() + b"\n")
    silent.write(b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n')
    for _ in range(100):  # more than a pipe holds
        silent.write(b'{"jsonrpc":"2.0","id":2,"method":"tools/list"}\n')
    assert silent.end() == 0


@pytest.mark.skipif(os.name == "nt", reason="names there are always Unicode")
def test_a_name_that_is_not_utf_8_is_shown_by_escapes(home: Path) -> None:
    (home / "runs").mkdir(parents=True, mode=0o700)
    home.chmod(0o700)
    os.mkdir(os.fsencode(home / "runs") + b"/bad\xff\nname")
    server = Server()
    server.answer(json.dumps(INITIALIZE).encode() + b"\n")
    server.write(b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n')
    call = b'{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"list_runs","arguments":{}}}\n'
    text = server.answer(call)["result"]["content"][0]["text"]
    assert "bad\\udcff name" in text.replace("\\\\", "\\")
    assert server.end() == 0
