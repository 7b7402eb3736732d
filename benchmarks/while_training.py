"""While a run trains on the same machine: how fast the server answers, and how soon a step is seen.

    python benchmarks/while_training.py MODEL_FOLDER [seconds]

Prints ping p50/p99, and the delay from the end of a step (as the run's events have it) to the client's
progress callback for the steps that were sent (at most two a second are).
"""

from __future__ import annotations

import json
import os
import re
import statistics
import sys
import tempfile
import time
import warnings
from datetime import datetime
from pathlib import Path

import anyio
from mcp import Client, StdioServerParameters, stdio_client

ROW = {
    "messages": [
        {"role": "user", "content": "Say it."},
        {"role": "assistant", "content": "It is said. " * 20},
    ]
}


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


async def ping(client: Client, times_ms: list[float], every_s: float = 0.05) -> None:
    while True:
        before = time.perf_counter()
        await client.send_ping()
        times_ms.append((time.perf_counter() - before) * 1000)
        await anyio.sleep(every_s)


def delays_ms(events: Path, seen: dict[int, float]) -> list[float]:
    """From each step's event to its callback."""
    rows = [json.loads(line) for line in events.read_text().splitlines()]
    ends = {
        row["step"]: datetime.fromisoformat(row["t"]).timestamp() for row in rows if row["kind"] == "step"
    }
    return [(moment - ends[step]) * 1000 for step, moment in seen.items()]


async def main(model: str, seconds: float) -> None:
    seen: dict[int, float] = {}
    idle_ms: list[float] = []
    busy_ms: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "rows.jsonl"
        data.write_text((json.dumps(ROW) + "\n") * 64)
        environment = {
            **os.environ,
            "BACKPROPAGATE_HOME": f"{folder}/home",
            "BACKPROPAGATE_RUNTIME_DIR": f"{folder}/slots",
        }
        server = StdioServerParameters(
            command=sys.executable,
            args=["-m", "backpropagate", "serve", "--root", folder, "--root", model],
            env=environment,
        )

        async def progress(_value: float, _total: float | None, message: str | None) -> None:
            step = re.match(r"step (\d+)/", message or "")
            if step:
                seen.setdefault(int(step[1]), time.time())

        async with Client(stdio_client(server), mode="legacy") as client:
            with anyio.move_on_after(5):
                await ping(client, idle_ms)
            arguments = {"dataset": str(data), "model": model, "steps": 10_000, "batch_size": 4, "wait_s": 0}
            result = await client.call_tool("train", arguments)
            run_id = result.structured_content["run_id"]
            while result.structured_content["step"] < 1:
                result = await client.call_tool("get_run", {"run_id": run_id})
                await anyio.sleep(0.2)
            with anyio.move_on_after(seconds):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(ping, client, busy_ms)
                    while True:
                        await client.call_tool(
                            "get_run", {"run_id": run_id, "wait_s": seconds}, progress_callback=progress
                        )
            await client.call_tool("cancel_run", {"run_id": run_id, "wait_s": 60})
            delays = delays_ms(Path(f"{folder}/home/runs/{run_id}/events.jsonl"), seen)
    for name, values in (("idle", idle_ms), ("training", busy_ms)):
        print(f"ping, {name}: {summary(values)}")
    if not seen:
        sys.exit("no step was shown in that time: give it more seconds")
    first = min(seen)  # of the history that the call begins with
    fresh = [delay for step, delay in zip(seen, delays, strict=True) if step != first]
    print(f"step to callback: {summary(fresh)}")


def summary(values_ms: list[float]) -> str:
    p50, p99 = statistics.median(values_ms), quantile(values_ms, 0.99)
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, n {len(values_ms)}"


warnings.simplefilter("ignore")  # ping belongs to the older era of the protocol
anyio.run(main, sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 60.0)
