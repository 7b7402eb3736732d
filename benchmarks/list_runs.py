"""The newest 20 runs of a home with many: how long the service, and a client over a pipe, wait for them.

python benchmarks/list_runs.py [--runs 10000] [--calls 200]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
from many_runs import make_runs
from mcp import Client, StdioServerParameters, stdio_client

from backpropagate.training.config.settings import Settings
from backpropagate.training.service import TrainingService

SHOWN = 20


async def timed(call: Callable[[], Awaitable[object]], calls: int) -> list[float]:
    """Milliseconds of each call, the first left out."""
    await call()
    spent: list[float] = []
    for _ in range(calls):
        began = time.perf_counter()
        await call()
        spent.append((time.perf_counter() - began) * 1000)
    return sorted(spent)


async def over_a_pipe(home: Path, calls: int) -> list[float]:
    parameters = StdioServerParameters(
        command=sys.executable,
        args=["-m", "backpropagate", "serve"],
        env={**os.environ, "BACKPROPAGATE_HOME": str(home)},
    )
    async with Client(stdio_client(parameters)) as client:
        shown = await client.call_tool("list_runs", {"limit": SHOWN})
        assert len((shown.structured_content or {}).get("runs", [])) == SHOWN, shown
        return await timed(lambda: client.call_tool("list_runs", {"limit": SHOWN}), calls)


async def measure(home: Path, calls: int) -> None:
    service = TrainingService(Settings(home=home))
    for name, spent in (
        ("service", await timed(lambda: service.list(limit=SHOWN), calls)),
        ("client over a pipe", await over_a_pipe(home, calls)),
    ):
        print(f"{name}: p50 {spent[len(spent) // 2]:.1f} ms, p99 {spent[int(len(spent) * 0.99)]:.1f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--home", type=Path, help="keep the runs here, and use them again")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home: Path = given.home or Path(folder)
        if not (home / "runs").exists():
            make_runs(home, given.runs)
        anyio.run(measure, home, given.calls)


if __name__ == "__main__":
    main()
