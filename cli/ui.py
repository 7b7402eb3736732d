"""`backprop ui`: the web page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .wrapped import say, say_lines

FILE = click.Path(path_type=Path)


@click.command("ui")
@click.option(
    "-p", "--port", default=7862, show_default=True, type=click.IntRange(0, 65535), help="0 is any."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to serve at.")
@click.option("--open", "--open-browser", "open_browser", is_flag=True, help="Open it in the browser.")
@click.option("--share", is_flag=True, help="Others will reach it through a tunnel. Needs a password.")
@click.option(
    "--tunnel",
    type=click.Choice(["cloudflared", "ngrok", "ssh"]),
    help="With --share: start this tool, which opens the tunnel.",
)
@click.option("--auth", metavar="USER:PASSWORD", help="Ask for this name and password.")
@click.option(
    "--auth-file", type=FILE, help="Ask for one of its USER:PASSWORD lines; a password may be a hash."
)
@click.option("--hash-password", is_flag=True, help="Ask for a password and print its hash for --auth-file.")
@click.option(
    "--root", "roots", multiple=True, type=FILE, help="Another folder that pages may read. Repeatable."
)
@click.option(
    "--allowed-host", "hosts", multiple=True, help="Another name by which browsers reach it. Repeatable."
)
def ui(open_browser: bool, hash_password: bool, **given: Any) -> None:
    """Serve the web page: train, watch runs, look at datasets, export and ask, in a browser.

    Only this machine can reach it. It shows the runs of all other commands; they continue when it ends.
    """
    if hash_password:
        from ..web.passwords import hash_of

        say(hash_of(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)))
        return
    from ..web.options import UiOptions
    from ..web.serve import serve_ui

    if given["tunnel"] and not given["share"]:
        raise click.UsageError("--tunnel lets others in: add --share.")
    serve_ui(UiOptions(**given), lambda text: say_lines(text, err=True), open_browser=open_browser)
