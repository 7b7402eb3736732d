"""Who is let in over HTTP: whoever has the one token, or those with a token of an issuer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import anyio
from starlette.types import ASGIApp

from ..training.untrusted import shown_path
from .access.access_token import TokenCheck
from .access.bearer import Bearer, token_in
from .access.issuer import IssuerError, IssuerKeys
from .access.oauth import OAuth
from .http_options import HttpOptions

Guard = Callable[[ASGIApp], ASGIApp]
"""Gives the application that passes on only what is permitted."""

Admission = Callable[[int], tuple[Guard, str]]
"""Gives, for the port, the guard and what to tell the person who serves."""


def admission(options: HttpOptions, home: Path) -> Admission:
    """As the options say; reads or makes the token, or fetches the issuer's keys."""
    return _by_oauth(options) if options.oauth_issuer else _by_token(options, home)


def _by_token(options: HttpOptions, home: Path) -> Admission:
    path = options.token_file or home / "http-token"
    token = token_in(path)
    where = f"It is in {shown_path(path)}." if options.is_local else "The server's owner has it."
    said = f"The token is in {shown_path(path)}; whoever has it can use this server."
    header = f"Bearer {token}"
    return lambda port: (lambda app: Bearer(app, token, where), _welcome(options, port, said, header))


def _by_oauth(options: HttpOptions) -> Admission:
    issuer = options.oauth_issuer or ""
    said = f"Tokens of {issuer} are accepted; each of its users has runs of its own."
    try:
        anyio.run(IssuerKeys(issuer).fetch)
    except IssuerError as error:
        said += f"\nIts keys cannot be had now, and no token is accepted before they are: {error}"

    def at(port: int) -> tuple[Guard, str]:
        url = options.url(port)
        check = TokenCheck(issuer, options.oauth_audience or url, IssuerKeys(issuer))
        return lambda app: OAuth(app, check, url, read_only=options.read_only), _welcome(options, port, said)

    return at


def _welcome(options: HttpOptions, port: int, said: str, header: str | None = None) -> str:
    """What the person at the terminal is told.

    Args:
        header: the value of `Authorization` that a client's configuration needs; None: the client gets it.
    """
    url = options.url(port)
    entry: dict[str, object] = {"type": "http", "url": url}
    command = f"claude mcp add --transport http backpropagate {url}"
    if header is not None:
        entry["headers"] = {"Authorization": header}
        command += f' --header "Authorization: {header}"'
    roots = ", ".join(map(shown_path, options.roots)) or "none but the home of runs (--root adds one)"
    return (
        f"Serving at {url}. {said}\n"
        f"{_openai(options, port)}"
        f"Folders that tools may use: {roots}.\n\n"
        f"{command}\n\n"
        f"{json.dumps({'mcpServers': {'backpropagate': entry}}, indent=2)}\n\n"
        "Ctrl-C ends the server; runs continue."
    )


def _openai(options: HttpOptions, port: int) -> str:
    """What programs with the `openai` package need, which take both from the environment."""
    if not options.openai:
        return ""
    return (
        f"OpenAI's interface: OPENAI_BASE_URL={options.openai_url(port)}, and the token as OPENAI_API_KEY.\n"
    )
