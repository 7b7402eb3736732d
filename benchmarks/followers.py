"""Many who follow one run over HTTP: what it costs the server, and how long others wait for an answer.

python benchmarks/followers.py [--followers 1 50] [--seconds 20]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import anyio
import httpx2
import psutil
from live_follow import follows, live_run, serving, trains
from mcp import Client
from mcp.client.streamable_http import streamable_http_client


async def lists(url: str, token: str, spent: list[float]) -> None:
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=120) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        while True:
            began = time.perf_counter()
            await client.call_tool("list_runs", {})
            spent.append((time.perf_counter() - began) * 1000)
            await anyio.sleep(0.3)


async def measure(followers: int, seconds: float) -> None:
    told: list[list[float]] = [[] for _ in range(followers)]
    spent: list[float] = []
    ends: dict[int, float] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        live_run(Path(folder)) as (run, recorder),
        serving(Path(folder)) as (server, url, token),
    ):
        process = psutil.Process(server.pid)
        before = after = process.cpu_times()
        async with anyio.create_task_group() as background:
            background.start_soon(trains, recorder, ends)
            background.start_soon(lists, url, token, spent)
            await anyio.sleep(1)
            before = process.cpu_times()
            async with anyio.create_task_group() as group:
                for delays in told:
                    group.start_soon(follows, url, token, run, seconds, ends, delays)
            after = process.cpu_times()
            background.cancel_scope.cancel()
    cpu = after.user + after.system - before.user - before.system
    fewest, most = min(map(len, told)), max(map(len, told))
    print(
        f"{followers} followers for {seconds:.0f} s: server {cpu:.1f} s of CPU; "
        f"list_runs {_quantiles(spent)}; "
        f"{fewest} to {most} progress messages each, {_quantiles([ms for one in told for ms in one])} after "
        "the step"
    )


def _quantiles(values: list[float]) -> str:
    ordered = sorted(values)
    return f"p50 {ordered[len(ordered) // 2]:.0f} ms, p99 {ordered[int(len(ordered) * 0.99)]:.0f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--followers", type=int, nargs="+", default=[1, 50])
    parser.add_argument("--seconds", type=float, default=20)
    given = parser.parse_args()
    for followers in given.followers:
        anyio.run(measure, followers, given.seconds)


if __name__ == "__main__":
    main()
