"""A server over HTTP, a run that seems to be at work, and clients that follow it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import anyio
import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from backpropagate.training.config.specs import TrainSpec
from backpropagate.training.events import Step
from backpropagate.training.runs.folder import RunFolder
from backpropagate.training.runs.recorder import RunRecorder
from backpropagate.training.runs.store import RunStore

STEP_S = 0.1


@contextmanager
def serving(home: Path) -> Generator[tuple[subprocess.Popen[str], str, str]]:
    """The server's process, its address and its token."""
    environment = {**os.environ, "BACKPROPAGATE_HOME": str(home)}
    command = [sys.executable, "-m", "backpropagate", "serve", "--http", "--port", "0"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr
        told = "".join(iter(server.stderr.readline, "Ctrl-C ends the server; runs continue.\n"))
        found = re.search(r"claude mcp add .* (http\S+) --header \"Authorization: Bearer (\S+)\"", told)
        assert found, told
        try:
            yield server, found[1], found[2]
        finally:
            server.terminate()


@contextmanager
def live_run(home: Path) -> Generator[tuple[RunFolder, RunRecorder]]:
    """A run that seems to be at work in this process."""
    store = RunStore(home)
    spec = TrainSpec.model_validate({"model": {"name": "a/model"}, "data": {"source": "rows.jsonl"}})
    run = store.create(spec)
    lock = run.lock()
    assert lock.try_acquire()
    recorder = RunRecorder(store, run)
    recorder.begin()
    recorder.running("cpu")
    yield run, recorder
    lock.release()


async def trains(recorder: RunRecorder, ends: dict[int, float]) -> None:
    """Steps, as a worker would report them, and when."""
    for step in range(1, 1_000_000):
        ends[step] = time.perf_counter()
        recorder.report(Step(step=step, total_steps=1_000_000, loss=1.0, tokens_per_s=1e4, eta_s=60.0))
        await anyio.sleep(STEP_S)


async def follows(
    url: str, token: str, run: RunFolder, seconds: float, ends: dict[int, float], delays: list[float]
) -> None:
    """One client that follows the run; the milliseconds from a step to its progress message."""

    async def progress(progress: float, total: float | None, message: str | None) -> None:
        if progress == int(progress):
            delays.append((time.perf_counter() - ends[int(progress)]) * 1000)

    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=120) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        arguments = {"run_id": run.run_id, "wait_s": seconds}
        await client.call_tool("get_run", arguments, progress_callback=progress)
