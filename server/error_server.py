"""A server that cannot work, and says so to whoever asks: an assistant does not see what goes to stderr."""

from __future__ import annotations

from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

from .. import __version__
from ..tools import TOOLS
from ..tools.wording import words
from ..training.errors import BackpropagateError


def broken_server(error: BackpropagateError) -> MCPServer[Any]:
    """Every tool, each of which answers with the error that keeps the server from working."""
    sentence = error.sentence(words)
    server: MCPServer[Any] = MCPServer("backpropagate", version=__version__, instructions=sentence)

    async def refuse() -> None:
        raise ToolError(sentence)

    for tool in TOOLS:
        server.add_tool(refuse, name=tool.name, title=tool.title, description=f"Cannot work now: {sentence}")
    return server
