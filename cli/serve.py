"""`backprop serve`: the MCP server over stdio."""

from __future__ import annotations

from pathlib import Path

import click

from ..server.stdio import reserve_stdout, serve_stdio


@click.command("serve")
@click.option(
    "--root",
    "roots",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Another folder, besides your home, that tools may read and write. May be repeated.",
)
@click.pass_context
def serve(ctx: click.Context, roots: tuple[Path, ...]) -> None:
    """Serve the tools to an MCP client over stdio. The client starts this command."""
    wire: int | None = ctx.find_root().obj["wire"]
    serve_stdio(reserve_stdout() if wire is None else wire, roots)
