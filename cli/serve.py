"""`backprop serve`: the MCP server over stdio."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import click

from ..server.stdio import reserve_stdout, serve_stdio
from .wrapped import say


@click.command("serve")
@click.option(
    "--root",
    "roots",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Another folder, besides your home, that tools may read and write. May be repeated.",
)
@click.pass_context
def serve(ctx: click.Context, roots: tuple[Path, ...]) -> None:
    """Serve the tools to an MCP client over stdio. The client starts this command."""
    wire: int | None = ctx.find_root().obj["wire"]
    for root in roots:
        if not root.expanduser().is_dir():
            # The server starts: a disk that is mounted later, or a typing error, must not cost every tool.
            say(f"--root {root}: no such folder yet. It is permitted once it exists.", err=True)
    if sys.stdin.isatty():
        _explain_to_a_person(roots)
    serve_stdio(reserve_stdout() if wire is None else wire, roots)


def _explain_to_a_person(roots: tuple[Path, ...]) -> None:
    """Say what this command is for, and let Ctrl-C end it: the reader of stdin cannot be interrupted."""
    signal.signal(signal.SIGINT, lambda _signal, _frame: os._exit(130))
    arguments = ["-P", "-m", "backpropagate", "serve"]
    for root in roots:
        arguments += ["--root", str(root.expanduser().absolute())]
    entry = {"mcpServers": {"backpropagate": {"command": sys.executable, "args": arguments}}}
    click.echo(
        "This is an MCP server. It speaks JSON-RPC on stdin and stdout, and an MCP client\n"
        "(Claude Desktop, Claude Code, Cursor, VS Code, …) starts it. Put this into the\n"
        f"client's configuration:\n\n{json.dumps(entry, indent=2)}\n\n"
        "For people there are other commands: see `backprop --help`. Ctrl-C stops this one.",
        err=True,
    )
