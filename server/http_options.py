"""Where a server over HTTP is, who may reach it, and what is refused since it would let others in."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..training.errors import InputError
from ..training.untrusted import shown_path
from .access.oauth import require_url
from .listen import is_loopback

PATH = "/mcp"
EVERY_ADDRESS = ("0.0.0.0", "::")


@dataclass(frozen=True)
class HttpOptions:
    """Where to serve, and to whom.

    Args:
        port: 0 takes a free one.
        token_file: holds the token; None: `http-token` in the home of runs.
        oauth_issuer: the authorization server whose tokens are accepted, instead of that one token.
        oauth_audience: what those tokens must be for; None: the address of this server.
        roots: the only folders, besides the home of runs, that tools may use.
        read_only: offer only the tools that change nothing.
        hosts: names by which clients reach the server, with the port if it is not this one.
        certificate, key: PEM files for TLS.
        behind_proxy: a proxy on this machine or network adds TLS.
        openai: also offer OpenAI's interface.
    """

    host: str = "127.0.0.1"
    port: int = 7861
    token_file: Path | None = None
    oauth_issuer: str | None = None
    oauth_audience: str | None = None
    roots: Sequence[Path] = ()
    read_only: bool = False
    hosts: Sequence[str] = ()
    certificate: Path | None = None
    key: Path | None = None
    behind_proxy: bool = False
    openai: bool = False

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host)

    def url(self, port: int) -> str:
        """Of the endpoint, as clients know it."""
        return f"{self._origin(port)}{PATH}"

    def openai_url(self, port: int) -> str:
        """What clients of OpenAI's interface call `base_url`."""
        return f"{self._origin(port)}/v1"

    def _origin(self, port: int) -> str:
        scheme = "http" if self.certificate is None and not self.behind_proxy else "https"
        own = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{self.hosts[0] if self.hosts else f'{own}:{port}'}"


def require_protection(options: HttpOptions) -> None:
    """Refuse what would let others in.

    Raises:
        InputError: another machine could reach the server without TLS, or a file is not usable.
    """
    _require_one_kind_of_token(options)
    if (options.certificate is None) != (options.key is None):
        raise InputError("TLS needs a certificate and its key.", hint="Give --tls-cert and --tls-key.")
    for file in filter(None, (options.certificate, options.key)):
        if not file.is_file():
            raise InputError(f"{shown_path(file)} does not exist.", hint="Give a PEM file.")
    if options.certificate is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
                options.certificate, options.key, lambda: b""
            )
        except (ssl.SSLError, OSError) as error:
            raise InputError(
                f"{shown_path(options.certificate)} and its key are no pair of PEM files without a password.",
                hint="Give a certificate and the key that belongs to it.",
                untrusted=str(error),
            ) from error
    if not options.is_local and options.certificate is None and not options.behind_proxy:
        raise InputError(
            f"{options.host} can be reached from other machines, and the token would be sent in the clear.",
            hint="Give --tls-cert and --tls-key, or --behind-proxy if a proxy adds TLS.",
        )
    if options.host in EVERY_ADDRESS and not options.hosts:
        raise InputError(
            f"{options.host} is every address of this machine, and no name by which clients reach it.",
            hint="Give that name and the port, e.g. --allowed-host gpu.example.org:7861.",
        )


def _require_one_kind_of_token(options: HttpOptions) -> None:
    if options.oauth_issuer is None:
        if options.oauth_audience is not None:
            raise InputError("--oauth-audience is for OAuth.", hint="Give --oauth-issuer as well.")
        return
    if options.token_file is not None:
        raise InputError("--token-file and --oauth-issuer are two kinds of tokens.", hint="Give one of them.")
    require_url(options.oauth_issuer, "--oauth-issuer")
