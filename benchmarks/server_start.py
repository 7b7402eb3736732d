"""Server start to first answer, and memory, beside a bare server of the SDK with one tool.

    python benchmarks/server_start.py [rounds]

Both are started in turn over stdio; the ratio is taken pair by pair and the median printed.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import anyio
import psutil
from mcp import Client, StdioServerParameters, stdio_client

BARE = """
from mcp.server import MCPServer
server = MCPServer("bare")
@server.tool()
def hello(name: str) -> str:
    return name
server.run("stdio")
"""


async def start(arguments: list[str], home: Path) -> tuple[float, float]:
    """Seconds from spawn to the answer to tools/list, and the server's memory in MiB after it."""
    environment = {
        **os.environ,
        "BACKPROPAGATE_HOME": str(home),
        "BACKPROPAGATE_RUNTIME_DIR": str(home / "slots"),
    }
    server = StdioServerParameters(command=sys.executable, args=arguments, env=environment)
    before = time.perf_counter()
    async with Client(stdio_client(server)) as client:
        await client.list_tools()
        seconds = time.perf_counter() - before
        child = psutil.Process().children()[0]
        return seconds, child.memory_info().rss / 2**20


async def main(rounds: int) -> None:
    ours, bare = [], []
    with tempfile.TemporaryDirectory() as home:
        for _ in range(rounds + 1):
            ours.append(await start(["-m", "backpropagate", "serve"], Path(home)))
            bare.append(await start(["-c", BARE], Path(home)))
    ours, bare = ours[1:], bare[1:]  # the first round warms the disk's cache
    ratios = [a[0] / b[0] for a, b in zip(ours, bare, strict=True)]
    ours_s, bare_s = (statistics.median(seconds for seconds, _ in side) for side in (ours, bare))
    ours_mib, bare_mib = (max(mib for _, mib in side) for side in (ours, bare))
    print(f"first answer: ours {ours_s:.2f} s, bare {bare_s:.2f} s")
    print(
        f"ratio: {statistics.median(ratios):.2f} (least {min(ratios):.2f}, most {max(ratios):.2f}; goal 1.3)"
    )
    print(f"memory: ours {ours_mib:.0f} MiB (goal 120), bare {bare_mib:.0f} MiB")


anyio.run(main, int(sys.argv[1]) if len(sys.argv) > 1 else 7)
