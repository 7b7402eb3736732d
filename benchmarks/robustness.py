"""What clients may do to a server: many at once, slow ones, ones that vanish, send garbage, or never read.

python benchmarks/robustness.py [--clients 50] [--seconds 15] [--calls 10000]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx2
import psutil
from live_follow import follows, live_run, serving, trains
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "robustness", "version": "0"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
MIB = 2**20
GROWTH_MIB = 5

BROKEN: list[str] = []


def require(held: bool, promise: str) -> None:
    """Note a promise that does not hold; the program then exits 1."""
    if not held:
        print(f"WRONG: {promise}")
        BROKEN.append(promise)


def quantiles(values: list[float]) -> str:
    ordered = sorted(values)
    at = {share: ordered[min(len(ordered) - 1, int(len(ordered) * share / 100))] for share in (50, 95, 99)}
    return ", ".join(f"p{share} {ms:.0f} ms" for share, ms in at.items()) + f" of {len(ordered)}"


# --- over HTTP ---
async def lists(url: str, token: str, spent: list[float]) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=120) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        while True:
            began = time.perf_counter()
            answer = await client.call_tool("list_runs", {})
            assert not answer.is_error
            spent.append((time.perf_counter() - began) * 1000)
            await anyio.sleep(0.5)


def call(url: str, token: str, method: str, params: dict[str, Any], name: str | None = None) -> bytes:
    """A request of the newest era, as bytes."""
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": META}})
    head = [
        f"POST {urlsplit(url).path} HTTP/1.1",
        f"Host: {urlsplit(url).netloc}",
        f"Authorization: Bearer {token}",
        "Accept: application/json, text/event-stream",
        "Content-Type: application/json",
        "Mcp-Protocol-Version: 2026-07-28",
        f"Mcp-Method: {method}",
        *([f"Mcp-Name: {name}"] if name else []),
        f"Content-Length: {len(body)}",
    ]
    return ("\r\n".join(head) + "\r\n\r\n" + body).encode()


def never_reads(url: str, request: bytes) -> socket.socket:
    at = urlsplit(url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((at.hostname, at.port))
    connection.sendall(request)
    return connection


async def over_http(clients: int, seconds: float) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        live_run(Path(folder)) as (run, recorder),
        serving(Path(folder)) as (server, url, token),
    ):
        process = psutil.Process(server.pid)
        spent: list[float] = []
        delays: list[list[float]] = [[] for _ in range(clients)]
        ends: dict[int, float] = {}
        follow = {"name": "get_run", "arguments": {"run_id": run.run_id, "wait_s": 600}}
        async with anyio.create_task_group() as background:
            background.start_soon(trains, recorder, ends)
            for _ in range(clients):
                background.start_soon(lists, url, token, spent)
            await anyio.sleep(3)
            spent.clear()
            async with anyio.create_task_group() as group:
                for told in delays:
                    group.start_soon(follows, url, token, run, seconds, ends, told)
            background.cancel_scope.cancel()
        print(
            f"{clients} clients that list and {clients} that follow: list_runs {quantiles(spent)}; "
            f"progress {quantiles([ms for told in delays for ms in told])} after the step"
        )

        before = process.memory_info().rss
        request = call(url, token, "tools/call", follow, "get_run")
        slow = [never_reads(url, request) for _ in range(clients)]
        spent = []
        async with anyio.create_task_group() as background:
            background.start_soon(trains, recorder, ends)
            background.start_soon(lists, url, token, spent)
            await anyio.sleep(seconds)
            background.cancel_scope.cancel()
        grown = (process.memory_info().rss - before) / MIB
        require(grown < GROWTH_MIB, f"clients that never read cost less than {GROWTH_MIB} MiB")
        print(
            f"beside {clients} that follow and never read: list_runs {quantiles(spent)}; "
            f"the server grew by {grown:.1f} MiB in {seconds:.0f} s"
        )
        for connection in slow:
            connection.close()

        idle = never_reads(url, b"")
        await anyio.sleep(20)
        idle.sendall(call(url, token, "tools/list", {}))
        kept = idle.recv(12)
        print(f"a connection that was idle for 20 s is {'kept' if kept else 'closed'}")
        require(kept == b"HTTP/1.1 200", "an idle connection is kept, and answered")

        listen = {"notifications": {"toolsListChanged": True}}
        opened = [never_reads(url, call(url, token, "subscriptions/listen", listen)) for _ in range(10)]
        opened += [never_reads(url, request) for _ in range(10)]
        await anyio.sleep(2)
        began = time.perf_counter()
        server.send_signal(signal.SIGTERM)
        server.wait(60)
        took = time.perf_counter() - began
        print(f"SIGTERM with {len(opened)} open streams: ends in {took:.2f} s")
        require(took < 2, "SIGTERM ends the server within 2 s")
        for connection in [idle, *opened]:
            connection.close()


# --- over a pipe ---
def start() -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "backpropagate", "serve"]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=quiet)


def line(number: int, method: str, params: dict[str, Any] | None = None) -> bytes:
    return (
        json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params or {}}).encode()
        + b"\n"
    )


def list_runs(number: int) -> bytes:
    return line(number, "tools/call", {"name": "list_runs", "arguments": {}})


def greet(server: subprocess.Popen[bytes]) -> None:
    assert server.stdin and server.stdout
    about = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "0"}}
    server.stdin.write(line(0, "initialize", about))
    server.stdin.write(b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n')
    server.stdin.flush()
    server.stdout.readline()


def garbage() -> None:
    server = start()
    greet(server)
    stdin = server.stdin
    assert stdin and server.stdout
    noise = os.urandom(MIB).replace(b"\n", b"\0")
    lines = [noise[at : at + 1000] for at in range(0, len(noise), 1000)]
    sent = b"\n".join([*lines, noise]) + b"\n" + line(1, "ping")
    writer = threading.Thread(target=lambda: (stdin.write(sent), stdin.flush()))
    writer.start()
    refused = 0
    while json.loads(server.stdout.readline()).get("id") != 1:
        refused += 1
    writer.join()
    stdin.close()
    code = server.wait(30)
    print(
        f"2 MiB of garbage in {len(lines) + 1} lines: {refused} refusals, then a ping is answered; "
        f"ends with {code}",
    )
    require((refused, code) == (len(lines) + 1, 0), "every line of garbage is refused, and the server lives")


def unread(calls: int) -> None:
    server = start()
    greet(server)
    assert server.stdin and server.stdout
    # The server's answers fill the pipe; what it then does not read fills the other one.
    os.set_blocking(server.stdin.fileno(), False)
    waiting = b"".join(map(list_runs, range(1, calls + 1)))
    end = time.monotonic() + 5
    while waiting and time.monotonic() < end:
        try:
            waiting = waiting[os.write(server.stdin.fileno(), waiting[: 2**16]) :]
        except BlockingIOError:
            time.sleep(0.05)
    held = psutil.Process(server.pid).memory_info().rss / MIB
    os.set_blocking(server.stdin.fileno(), True)
    answered: set[int] = set()
    while len(answered) < calls:
        if waiting:
            waiting = waiting[os.write(server.stdin.fileno(), waiting[: 2**12]) :]
        answer = json.loads(server.stdout.readline())
        require("result" in answer and not answer["result"].get("isError"), "each call has its result")
        answered.add(answer["id"])
    server.stdin.close()
    code = server.wait(30)
    print(
        f"{calls} calls before anything is read: {len(answered)} answers, {held:.0f} MiB meanwhile; "
        f"ends with {code}"
    )
    require(code == 0, "the server ends as it should")


def half_closed() -> None:
    for closed in ("stdout", "stdin"):
        server = start()
        greet(server)
        assert server.stdin and server.stdout
        getattr(server, closed).close()
        if closed == "stdout":
            server.stdin.write(b"".join(map(list_runs, range(1, 100))))
            server.stdin.flush()
            time.sleep(2)
            alive = "lives" if server.poll() is None else "has ended"
            require(alive == "lives", "a client that does not read ends no server")
            began = time.perf_counter()
            server.stdin.close()
            print(f"a client whose reading end is gone: the server {alive}, and ends {_after(server, began)}")
        else:
            print(
                f"a client whose writing end is gone: the server ends {_after(server, time.perf_counter())}"
            )


def _after(server: subprocess.Popen[bytes], began: float) -> str:
    code = server.wait(60)
    require(code == 0, "the server ends as it should")
    return f"with {code} after {time.perf_counter() - began:.2f} s"


def memory(calls: int) -> None:
    server = start()
    greet(server)
    assert server.stdin and server.stdout
    process = psutil.Process(server.pid)
    shown: list[str] = []
    sizes: list[float] = []
    for number in range(1, calls + 1):
        server.stdin.write(list_runs(number))
        server.stdin.flush()
        require(json.loads(server.stdout.readline()).get("id") == number, "each call is answered")
        if number in (calls // 10, calls // 2, calls):
            sizes.append(process.memory_info().rss / MIB)
            shown.append(f"{sizes[-1]:.1f} MiB after {number}")
    server.stdin.close()
    server.wait(30)
    print(f"memory: {', '.join(shown)} calls")
    require(sizes[-1] - sizes[0] < GROWTH_MIB, "memory does not grow with the calls")


def main() -> None:
    sys.stdout.reconfigure(line_buffering=True)  # pyright: ignore[reportAttributeAccessIssue]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--calls", type=int, default=10_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["BACKPROPAGATE_HOME"] = home
        garbage()
        unread(1000)
        half_closed()
        memory(given.calls)
    anyio.run(over_http, given.clients, given.seconds)
    sys.exit(1 if BROKEN else 0)


if __name__ == "__main__":
    main()
