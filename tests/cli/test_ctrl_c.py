"""Ctrl-C leaves a run that another command started, and stops a server that was started by hand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from waiting import small_spec, wait_for_step, wait_until

from backpropagate.training.runs.folder import Status
from backpropagate.training.service import TrainingService

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(os.name == "nt", reason="a console's Ctrl-C cannot be sent to a pipe's process"),
]


@pytest.mark.slow
async def test_ctrl_c_leaves_a_run_that_is_only_followed(
    service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    started = await service.submit(small_spec(dataset, tiny_model, steps=100_000))
    run = service.store.find(started.run_id)
    wait_for_step(run, 2)
    following = subprocess.Popen(
        [sys.executable, "-m", "backpropagate", "show-run", run.run_id, "--follow"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        lines_until(following, lambda line: "step" in line)
        following.send_signal(signal.SIGINT)
        out, err = following.communicate(timeout=60)
        assert following.returncode == 0 and f"`backprop cancel {run.run_id}` stops it" in err
        assert "running" in out and not run.cancel_requested()
        assert service.store.observe(run).status is Status.RUNNING
    finally:
        following.kill()
        following.communicate()
        await service.cancel(run.run_id)
        wait_until(lambda: service.store.observe(run).status is Status.CANCELLED, "the end")


def test_a_server_in_a_terminal_says_what_it_is_and_stops_at_ctrl_c(home: Path, tmp_path: Path) -> None:
    import pty

    terminal, its_end = pty.openpty()
    server = subprocess.Popen(
        [sys.executable, "-m", "backpropagate", "serve", "--root", str(tmp_path / "typo")],
        stdin=its_end,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        said = lines_until(server, lambda line: "Ctrl-C" in line)
        assert f"{tmp_path / 'typo'}: no such folder yet" in said
        assert "This is an MCP server" in said and '"mcpServers"' in said and sys.executable in said
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=30) == 130
        assert server.stdout and server.stdout.read() == ""
    finally:
        server.kill()
        server.communicate()
        os.close(its_end)
        os.close(terminal)


def lines_until(process: subprocess.Popen[str], last: Callable[[str], bool]) -> str:
    assert process.stderr
    lines: list[str] = []
    while not lines or not last(lines[-1]):
        lines.append(process.stderr.readline())
        assert lines[-1], "".join(lines)
    return "".join(lines)
