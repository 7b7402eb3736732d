"""Where the Ollama server is: OLLAMA_HOST, read as Ollama itself reads it (its envconfig/config.go)."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import unquote

from ...errors import OllamaError

DEFAULT_PORTS = {"http": 80, "https": 443}
OLLAMA_PORT = 11434
UNSPECIFIED = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}
"""Addresses that a server binds to, and where a client finds it then."""


@dataclass(frozen=True)
class Address:
    """A server's address; user and password, if any, are never part of what is shown."""

    scheme: str
    host: str
    port: int
    path: str = ""
    user_info: tuple[str, str] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"

    @property
    def is_local(self) -> bool:
        """Whether it is this machine, which no proxy can stand in front of."""
        if self.host == "localhost" or self.host.endswith(".localhost"):
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return self.url


def ollama_address(value: str | None = None) -> Address:
    """The address that OLLAMA_HOST names: a host, host:port, :port or a URL; by default this machine.

    As in Ollama, the port is 11434, or 80 or 443 for a URL without a port; a port that is not a number
    is the default one, and 0.0.0.0 is this machine.

    Args:
        value: read instead of the environment.

    Raises:
        OllamaError: it is a URL of something else than HTTP.
    """
    text = (os.environ.get("OLLAMA_HOST", "") if value is None else value).strip().strip("\"'").strip()
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = ("https", "ollama.com:443") if text == "ollama.com" else ("http", text)
    if scheme not in DEFAULT_PORTS:
        raise OllamaError(
            f"OLLAMA_HOST begins with {scheme[:20]}://, which is not HTTP.",
            hint="Set it to host:port or to an http:// or https:// URL.",
        )
    default = DEFAULT_PORTS[scheme] if separator else OLLAMA_PORT
    authority, _, path = rest.partition("/")
    user_info, _, host_port = authority.rpartition("@")
    host, port = _split(host_port, default)
    path = path.strip("/")
    return Address(
        scheme, UNSPECIFIED.get(host, host), port, f"/{path}" if path else "", _user_info(user_info)
    )


def _split(text: str, default: int) -> tuple[str, int]:
    """Host and port; a text that is no `host:port` is a host, an IPv6 address with or without brackets."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if colon and (bracketed or ":" not in host):
        number = int(port) if port.isascii() and port.isdigit() else default
        return host.strip("[]"), number if number <= 65535 else default
    return text.strip("[]"), default


def _user_info(text: str) -> tuple[str, str] | None:
    if not text:
        return None
    user, _, password = text.partition(":")
    return unquote(user), unquote(password)
