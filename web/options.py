"""Where the page is, who may use it, and what is refused since it would let others in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..server.listen import is_loopback
from ..training.config.settings import Settings
from ..training.errors import AuthRequiredError, OutputFolderForbiddenError, PathForbiddenError
from ..training.files.paths import UI_OUTPUTS, PathPolicy

TUNNELS = (
    ".trycloudflare.com",
    ".ngrok-free.app",
    ".ngrok-free.dev",
    ".ngrok.app",
    ".ngrok.dev",
    ".ngrok.io",
    ".lhr.life",
    ".serveo.net",
)
"""Ends of the names that tunnels give; their owners resolve them, so none can lead to this machine."""


@dataclass(frozen=True)
class UiOptions:
    """Where to serve, and to whom.

    Args:
        port: 0 takes a free one.
        share: others will reach the page through a tunnel.
        tunnel: the tool that is started for it; None: the person starts one.
        auth: `user:password`.
        auth_file: a file with one `user:password` or `user:hash` a line.
        roots: folders that pages may read, besides the user's home and the output folder.
        hosts: further names by which browsers reach the page.
    """

    host: str = "127.0.0.1"
    port: int = 7862
    share: bool = False
    tunnel: str | None = None
    auth: str | None = None
    auth_file: Path | None = None
    roots: Sequence[Path] = ()
    hosts: Sequence[str] = ()

    @property
    def is_for_others(self) -> bool:
        """Whether anybody but users of this machine can reach it."""
        return self.share or not is_loopback(self.host)

    @property
    def has_auth(self) -> bool:
        return self.auth is not None or self.auth_file is not None

    def url(self, port: int) -> str:
        own = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{own}:{port}/"

    def is_own_host(self, host: str, port: int) -> bool:
        """Whether a browser that names this Host meant the page."""
        names = ["127.0.0.1", "localhost", "[::1]"] if is_loopback(self.host) else []
        own = f"[{self.host}]" if ":" in self.host else self.host
        if host in {*(f"{name}:{port}" for name in (*names, own)), *self.hosts}:
            return True
        return self.share and host.endswith(TUNNELS)


def require_auth(options: UiOptions, settings: Settings) -> bool:
    """Whether to serve without a password to others all the same, as the settings say.

    Raises:
        AuthRequiredError: others could use the page without a password.
    """
    if not options.is_for_others or options.has_auth:
        return False
    if settings.security.require_auth_for_share:
        where = "Shared" if options.share else f"At {options.host}"
        raise AuthRequiredError(
            f"{where}, others could use this page, and it has no password.",
            hint="Give --auth USER:PASSWORD or --auth-file FILE.",
        )
    return True


def output_folder(settings: Settings) -> Path:
    """The one folder that pages write to, with every link resolved.

    Raises:
        OutputFolderForbiddenError: it is a folder of the system or of credentials, or in the home of runs.
    """
    home = settings.home.resolve()
    given = settings.ui.output_dir or settings.home / UI_OUTPUTS
    try:
        folder = Path(PathPolicy.for_person(home).resolve(str(given), "ui.output_dir", write=True))
    except PathForbiddenError as error:
        raise OutputFolderForbiddenError(
            error.message, hint="Set BACKPROPAGATE_UI__OUTPUT_DIR to a folder of your own."
        ) from None
    if home.is_relative_to(folder) or (folder.is_relative_to(home) and folder != home / UI_OUTPUTS):
        raise OutputFolderForbiddenError(
            "ui.output_dir contains the home folder of runs, or is in it.",
            hint="Set BACKPROPAGATE_UI__OUTPUT_DIR to a folder of its own.",
        )
    return folder
