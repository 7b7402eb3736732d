"""Serves over streamable HTTP, to clients of both eras of the protocol."""

from __future__ import annotations

import ipaddress
import json
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from mcp.server.transport_security import TransportSecuritySettings

from ..training.config.settings import load_settings
from ..training.errors import InputError, RuntimeFailure
from ..training.logs import configure_logging
from ..training.service import TrainingService
from ..training.untrusted import shown_path
from .app import build_server
from .bearer import Bearer, token_in

PATH = "/mcp"
KEEP_ALIVE_S = 75  # longer than clients wait between two calls
GRACE_S = 1  # for open streams, which do not end by themselves
CONNECTIONS = 512
EVERY_ADDRESS = ("0.0.0.0", "::")


@dataclass(frozen=True)
class HttpOptions:
    """Where to serve, and to whom.

    Args:
        port: 0 takes a free one.
        token_file: holds the token; None: `http-token` in the home of runs.
        roots: the only folders, besides the home of runs, that tools may use.
        read_only: offer only the tools that change nothing.
        hosts: names by which clients reach the server, with the port if it is not this one.
        certificate, key: PEM files for TLS.
        behind_proxy: a proxy on this machine or network adds TLS.
    """

    host: str = "127.0.0.1"
    port: int = 7861
    token_file: Path | None = None
    roots: Sequence[Path] = ()
    read_only: bool = False
    hosts: Sequence[str] = ()
    certificate: Path | None = None
    key: Path | None = None
    behind_proxy: bool = False

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        with suppress(ValueError):
            return ipaddress.ip_address(self.host).is_loopback
        return self.host == "localhost"


def serve_http(options: HttpOptions, say: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; runs continue in their own processes.

    Args:
        say: tells the person at the terminal the address and a client's configuration.

    Raises:
        InputError: another machine could reach the server without TLS, or a file is not usable.
        RuntimeFailure: the port is taken, or the address is none of this machine's.
    """
    _require_protection(options)
    settings = load_settings()
    configure_logging(settings)
    path = options.token_file or settings.home / "http-token"
    token = token_in(path)
    listening = _bind(options)
    port = listening.getsockname()[1]
    server = build_server(
        TrainingService(settings), options.roots, user_home=False, read_only=options.read_only
    )
    app = server.streamable_http_app(
        streamable_http_path=PATH, host=options.host, transport_security=_security(options, port)
    )
    where = f"It is in {shown_path(path)}." if options.is_local else "The server's owner has it."
    config = uvicorn.Config(
        Bearer(app, token, where),
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
        limit_concurrency=CONNECTIONS,
        ssl_certfile=options.certificate,
        ssl_keyfile=options.key,
    )
    say(_welcome(options, port, token, path))
    uvicorn.Server(config).run(sockets=[listening])


def _require_protection(options: HttpOptions) -> None:
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


def _bind(options: HttpOptions) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        # On Windows, SO_REUSEADDR would let another program take the same port.
        exclusive: int = getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR)
        listening.setsockopt(socket.SOL_SOCKET, exclusive, 1)
        listening.bind((options.host, options.port))
        listening.listen()  # so that whoever has read the address can connect at once
    except OSError as error:
        listening.close()
        raise RuntimeFailure(
            f"{options.host}:{options.port} cannot be served ({error.strerror or error}).",
            hint="Give another --port; 0 takes a free one.",
        ) from error
    return listening


def _security(options: HttpOptions, port: int) -> TransportSecuritySettings:
    """Exact names and ports: a page of another site that resolves its name to this machine is refused."""
    names = ["127.0.0.1", "localhost", "[::1]"] if options.is_local else []
    own = f"[{options.host}]" if ":" in options.host else options.host
    hosts = dict.fromkeys(f"{name}:{port}" for name in [*names, own])
    hosts |= dict.fromkeys(options.hosts)
    return TransportSecuritySettings(
        allowed_hosts=list(hosts), allowed_origins=[f"{_scheme(options)}://{host}" for host in hosts]
    )


def _scheme(options: HttpOptions) -> str:
    """As clients see it."""
    return "http" if options.certificate is None and not options.behind_proxy else "https"


def _welcome(options: HttpOptions, port: int, token: str, path: Path) -> str:
    own = f"[{options.host}]" if ":" in options.host else options.host
    reached = options.hosts[0] if options.hosts else f"{own}:{port}"
    url = f"{_scheme(options)}://{reached}{PATH}"
    header = f"Bearer {token}"
    entry = {"type": "http", "url": url, "headers": {"Authorization": header}}
    roots = ", ".join(map(shown_path, options.roots)) or "none but the home of runs (--root adds one)"
    return (
        f"Serving at {url}. The token is in {shown_path(path)}; whoever has it can use this server.\n"
        f"Folders that tools may use: {roots}.\n\n"
        f'claude mcp add --transport http backpropagate {url} --header "Authorization: {header}"\n\n'
        f"{json.dumps({'mcpServers': {'backpropagate': entry}}, indent=2)}\n\n"
        "Ctrl-C ends the server; runs continue."
    )
