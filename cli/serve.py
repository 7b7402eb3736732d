"""`backprop serve`: the MCP server over stdio or HTTP."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ..server.stdio import reserve_stdout, serve_stdio
from .client_configs import CLIENTS, SHOWN
from .client_configs import install as put_into
from .wrapped import say, say_lines

HTTP_ONLY = (
    "host",
    "port",
    "token_file",
    "oauth_issuer",
    "oauth_audience",
    "hosts",
    "certificate",
    "key",
    "behind_proxy",
    "openai",
)
FOLDER = click.Path(path_type=Path)


@click.command("serve")
@click.option(
    "--root",
    "roots",
    multiple=True,
    type=FOLDER,
    help="Another folder that tools may read and write: besides your home, or over HTTP the only one. "
    "May be repeated.",
)
@click.option("--http", is_flag=True, help="Serve over HTTP, with a token, instead of stdio.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to serve at.")
@click.option("--port", default=7861, show_default=True, type=click.IntRange(0, 65535), help="0 is any.")
@click.option("--token-file", type=FOLDER, help="Holds the token; made if it does not exist.")
@click.option("--oauth-issuer", help="Accept tokens of this authorization server (its URL) instead.")
@click.option("--oauth-audience", help="What they must be for, if not this server's URL.")
@click.option("--read-only", is_flag=True, help="Offer only the tools that change nothing.")
@click.option(
    "--allowed-host",
    "hosts",
    multiple=True,
    help="Name (and port) by which clients reach the server. Repeatable.",
)
@click.option("--tls-cert", "certificate", type=FOLDER, help="PEM file of the certificate.")
@click.option("--tls-key", "key", type=FOLDER, help="PEM file of its key.")
@click.option("--behind-proxy", is_flag=True, help="A proxy adds TLS: serve other machines without it.")
@click.option(
    "--openai",
    is_flag=True,
    help="Also offer OpenAI's fine-tuning interface: files, jobs, models and chat, for the `openai` package.",
)
@click.option("--print-config", type=click.Choice(list(SHOWN)), help="Print the entry for this client.")
@click.option("--install", type=click.Choice(list(CLIENTS)), help="Put the entry into this client's file.")
@click.option("--yes", is_flag=True, help="With --install: do not ask.")
@click.pass_context
def serve(
    ctx: click.Context,
    http: bool,
    roots: tuple[Path, ...],
    read_only: bool,
    print_config: str | None,
    install: str | None,
    yes: bool,
    **web: Any,
) -> None:
    """Serve the tools to MCP clients: over stdio to the one that starts this, or over HTTP to many."""
    for root in roots:
        if not root.expanduser().is_dir():
            # The server starts: a disk that is mounted later, or a typing error, must not cost every tool.
            say(f"--root {root}: no such folder yet. It is permitted once it exists.", err=True)
    if print_config or install:
        _configure(print_config, install, _arguments(roots, read_only), yes)
        return
    if http:
        from ..server.http import HttpOptions, serve_http

        serve_http(
            HttpOptions(roots=roots, read_only=read_only, **web), lambda text: click.echo(text, err=True)
        )
        return
    _require_stdio(ctx)
    wire: int | None = ctx.find_root().obj["wire"]
    if sys.stdin.isatty():
        _explain_to_a_person(_arguments(roots, read_only))
    serve_stdio(reserve_stdout() if wire is None else wire, roots, read_only)


def _require_stdio(ctx: click.Context) -> None:
    """An option of HTTP without --http would be ignored."""
    for name in HTTP_ONLY:
        if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name.replace('_', '-')} is for HTTP: add --http.")


def _arguments(roots: Sequence[Path], read_only: bool) -> list[str]:
    """Of the interpreter, for a client that starts this server."""
    arguments = ["-P", "-m", "backpropagate", "serve", *(["--read-only"] if read_only else [])]
    for root in roots:
        arguments += ["--root", str(root.expanduser().absolute())]
    return arguments


def _configure(shown: str | None, into: str | None, arguments: list[str], yes: bool) -> None:
    if shown:
        client = SHOWN[shown]
        where = f"{client.title}: {client.path()}" if shown in CLIENTS else "Where your client keeps it:"
        say(where, err=True)
        click.echo(client.text(arguments), nl=False)
    if into:
        client = CLIENTS[into]
        backup = put_into(client, arguments, lambda difference: _agreed(difference, yes))
        say(f"The file is {client.path()}." + (f" What it was is in {backup}." if backup else ""))


def _agreed(difference: str, yes: bool) -> bool:
    say_lines(difference)
    if not yes:
        click.confirm("Write this?", abort=True)
    return True


def _explain_to_a_person(arguments: list[str]) -> None:
    """Say what this command is for, and let Ctrl-C end it: the reader of stdin cannot be interrupted."""
    signal.signal(signal.SIGINT, lambda _signal, _frame: os._exit(130))
    click.echo(
        "This is an MCP server. It speaks JSON-RPC on stdin and stdout, and an MCP client\n"
        "(Claude Desktop, Claude Code, Cursor, VS Code, …) starts it. Put this into the\n"
        f"client's configuration, or let --install do it:\n\n{SHOWN['generic'].text(arguments)}\n"
        "For people there are other commands: see `backprop --help`. Ctrl-C stops this one.",
        err=True,
    )
