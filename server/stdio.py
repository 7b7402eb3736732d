"""Serves over stdin and stdout. Only protocol messages are written to stdout."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mcp.server import MCPServer

STDIN = 0
STDOUT = 1
STDERR = 2


def reserve_stdout() -> int:
    """Redirect stdout to stderr; returns the descriptor of the real stdout.

    Called before the first import that could print.
    """
    wire = os.dup(STDOUT)
    os.dup2(STDERR, STDOUT)
    return wire


def serve_stdio(wire: int, roots: Sequence[Path], read_only: bool = False) -> None:
    """Serve until stdin ends.

    Args:
        wire: what `reserve_stdout` returned.
        roots: folders besides the user's home that tools may read and write.
        read_only: offer only the tools that change nothing.
    """
    import anyio

    # What is imported and built here stays; the collector would only search it again and again.
    gc.disable()
    server = _server(roots, read_only)
    gc.freeze()
    gc.enable()
    anyio.run(_serve, server, _reserve_stdin(), wire)


def _reserve_stdin() -> int:
    """Redirect stdin from nothing, so that no child reads the client's messages; returns the real stdin."""
    wire = os.dup(STDIN)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, STDIN)
    os.close(nothing)
    return wire


async def _serve(server: MCPServer[Any], incoming: int, outgoing: int) -> None:
    import anyio
    from mcp.server.stdio import stdio_server

    from .messages import MessageReader, MessageWriter

    # Never closed: a thread may still read or write when the loop has ended.
    writer = MessageWriter(FileIO(outgoing, "wb", closefd=False))
    reader = MessageReader(os.fdopen(incoming, "rb", closefd=False), writer)
    files: Any = (anyio.wrap_file(reader), anyio.wrap_file(writer))  # pyright: ignore[reportArgumentType, reportCallIssue, reportUnknownVariableType]
    async with stdio_server(*files) as streams:
        # The SDK has no public way to serve its stdio transport over other files.
        low_level = server._lowlevel_server  # pyright: ignore[reportPrivateUsage]
        await low_level.run(*streams, low_level.create_initialization_options())


def _server(roots: Sequence[Path], read_only: bool) -> MCPServer[Any]:
    from ..training.config.settings import load_settings
    from ..training.errors import BackpropagateError
    from ..training.logs import configure_logging
    from ..training.service import TrainingService
    from ..training.telemetry import configure_telemetry
    from .app import build_server
    from .error_server import broken_server

    try:
        settings = load_settings()
    except BackpropagateError as error:
        sys.stderr.write(f"{error.sentence()}\n")
        return broken_server(error)
    configure_logging(settings)
    configure_telemetry()
    return build_server(TrainingService(settings), roots, read_only=read_only)
