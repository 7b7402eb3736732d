"""A server that answers every call with its startup error, since assistants do not see stderr."""

from __future__ import annotations

from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

from .. import __version__
from ..tools import TOOLS
from ..tools.wording import words
from ..training.errors import BackpropagateError


def broken_server(error: BackpropagateError) -> MCPServer[Any]:
    """A server with all tools, each of which returns the startup error."""
    sentence = error.sentence(words)
    server: MCPServer[Any] = MCPServer("backpropagate", version=__version__, instructions=sentence)

    async def refuse() -> None:
        raise ToolError(sentence)

    for tool in TOOLS:
        server.add_tool(refuse, name=tool.name, title=tool.title, description=f"Not available: {sentence}")
    return server
