"""Listens at an address, and serves an application there until SIGINT or SIGTERM."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from contextlib import suppress
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from ..training.errors import RuntimeFailure

KEEP_ALIVE_S = 75  # longer than clients wait between two calls
GRACE_S = 1  # for open streams, which do not end by themselves
CONNECTIONS = 512


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the host."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens; raises RuntimeFailure if there can be none."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        # On Windows, SO_REUSEADDR would let another program take the same port.
        exclusive: int = getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR)
        listening.setsockopt(socket.SOL_SOCKET, exclusive, 1)
        listening.bind((host, port))
        listening.listen()  # so that whoever has read the address can connect at once
    except OSError as error:
        listening.close()
        raise RuntimeFailure(
            f"{host}:{port} cannot be served ({error.strerror or error}).",
            hint="Give another --port; 0 takes a free one.",
        ) from error
    return listening


def serve_at(
    listening: socket.socket, app: ASGIApp, certificate: Path | None = None, key: Path | None = None
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        certificate, key: PEM files for TLS.
    """
    config = uvicorn.Config(
        app,
        http="h11",  # the other parser, taken where it is installed, keeps the space behind a header's value
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
        limit_concurrency=CONNECTIONS,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    logging.getLogger("uvicorn.error").addFilter(_is_no_cancelled_stream)
    uvicorn.Server(config).run(sockets=[listening])


def _is_no_cancelled_stream(record: logging.LogRecord) -> bool:
    """At the end each open stream is cancelled; pages of tracebacks could fill a pipe that nobody reads."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))
