"""Serves over stdin and stdout. Only protocol messages are written to stdout."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mcp.server import MCPServer

STDOUT = 1
STDERR = 2


def reserve_stdout() -> int:
    """Redirect stdout to stderr; returns the descriptor of the real stdout.

    Called before the first import that could print.
    """
    wire = os.dup(STDOUT)
    os.dup2(STDERR, STDOUT)
    return wire


def serve_stdio(wire: int, roots: Sequence[Path]) -> None:
    """Serve until stdin ends.

    Args:
        wire: what `reserve_stdout` returned.
        roots: folders besides the user's home that tools may read and write.
    """
    server = _server(roots)
    sys.stdout.flush()
    os.dup2(wire, STDOUT)  # the SDK takes it, and redirects stdout again while it serves
    os.close(wire)
    server.run("stdio")


def _server(roots: Sequence[Path]) -> MCPServer[Any]:
    from ..training.config.settings import load_settings
    from ..training.errors import BackpropagateError
    from ..training.logs import configure_logging
    from ..training.service import TrainingService
    from .app import build_server
    from .error_server import broken_server

    try:
        settings = load_settings()
    except BackpropagateError as error:
        sys.stderr.write(f"{error.sentence()}\n")
        return broken_server(error)
    configure_logging(settings)
    return build_server(TrainingService(settings), roots)
