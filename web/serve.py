"""Serves the pages until Ctrl-C; runs continue in their own processes."""

from __future__ import annotations

import time
import webbrowser
from collections.abc import Callable
from contextlib import suppress

import anyio

from ..server.calls.audit_log import AuditLog
from ..server.listen import bind, serve_at
from ..training.config.settings import Settings, load_settings
from ..training.files.paths import PathPolicy
from ..training.logs import configure_logging
from ..training.service import TrainingService
from ..training.telemetry import configure_telemetry
from ..training.untrusted import shown_path
from .app import build_app
from .desk import Desk
from .options import UiOptions, output_folder, require_auth
from .passwords import Accounts, accounts_of
from .tunnel import explanation, require_tool, tunnel

WARNED_S = 5


def serve_ui(options: UiOptions, say: Callable[[str], None], *, open_browser: bool = False) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        say: tells the person at the terminal the address.
        open_browser: open the page once a browser can load it.

    Raises:
        AuthRequiredError: others could use the page without a password.
        InputError: an account or an option is not usable.
        OutputFolderForbiddenError: the output folder is one of the system or of credentials.
        RuntimeFailure: the port is taken.
    """
    settings = load_settings()
    configure_logging(settings)
    configure_telemetry()
    if options.tunnel:
        require_tool(options.tunnel)
    open_to_all = require_auth(options, settings)
    accounts = accounts_of(options)
    output_folder(settings)  # an error comes before the wait
    if open_to_all:
        say(OPEN_TO_ALL)
        time.sleep(WARNED_S)
    listening = bind(options.host, options.port)
    port = listening.getsockname()[1]
    desk = desk_for(settings, options, accounts, port)
    anyio.run(desk.service.recover)
    say(welcome(options, desk, port))
    if open_browser:
        webbrowser.open(options.url(port))
    # Ctrl-C is how it ends.
    with suppress(KeyboardInterrupt), tunnel(options.tunnel, port), desk.service.keeping_spare():
        serve_at(listening, build_app(desk, options, port))


OPEN_TO_ALL = (
    "WARNING: this page has no password, and others can reach it. Whoever has its address can train on this\n"
    f"machine, read its datasets and remove runs. It starts in {WARNED_S} seconds; Ctrl-C stops it."
)


def desk_for(settings: Settings, options: UiOptions, accounts: Accounts, port: int) -> Desk:
    """What the pages of these options share."""
    outputs = output_folder(settings)
    roots = (outputs, *(root.expanduser().resolve() for root in options.roots))
    paths = PathPolicy(roots, settings.home.resolve(), (outputs,), user_home=not options.is_for_others)
    return Desk(
        TrainingService(settings), outputs, paths, accounts, f"backprop-{port}", AuditLog(settings.home)
    )


def welcome(options: UiOptions, desk: Desk, port: int) -> str:
    """What the person at the terminal is told."""
    lines = [f"The page is at {options.url(port)}"]
    lines.append(
        f"It writes to {shown_path(desk.outputs)}; runs are in {shown_path(desk.service.store.runs)}."
    )
    if options.auth is not None:
        lines.append("Other users of this machine can see --auth among its processes; --auth-file hides it.")
    if options.share and options.tunnel is None:
        lines.append(explanation(port))
    return "\n".join([*lines, "Ctrl-C ends the page; runs continue."])
