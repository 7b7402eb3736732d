"""Start the server in the first argument over stdio, and list its tools."""

import os
import sys

import anyio
from mcp import Client, StdioServerParameters, stdio_client


async def main() -> None:
    server = StdioServerParameters(command=sys.argv[1], env=dict(os.environ))
    async with Client(stdio_client(server)) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
        print("tools:", ", ".join(names))
        assert {"train", "list_runs", "get_run", "cancel_run", "gpu_status"} <= set(names)
        status = await client.call_tool("gpu_status", {})
        assert not status.is_error, status.content


anyio.run(main)
