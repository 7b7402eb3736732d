"""The one token of a server over HTTP: whoever can read its file is the user."""

from __future__ import annotations

import hmac
import json
import os
import secrets
import stat
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ...training.errors import ForeignOwnerError, InputError
from ...training.files.private_folder import OTHERS, make_private, require_own
from ...training.untrusted import shown_path
from .refusal import refusal_body

LEAST = 32  # characters


def token_in(path: Path) -> str:
    """The token in this file, which is made if it does not exist: clients' configurations hold it.

    Raises:
        ForeignOwnerError: another user owns or can read the file.
        InputError: it holds no token.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileNotFoundError:
        make_private(path.parent)
        return token_in(path)
    except FileExistsError:
        return _read(path)
    token = secrets.token_urlsafe(LEAST)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(token)
    return token


def _read(path: Path) -> str:
    require_own(path)
    if os.name != "nt" and stat.S_IMODE(path.stat().st_mode) & OTHERS:
        raise ForeignOwnerError(
            f"{shown_path(path)} can be read by other users.", hint="Take their rights from it (chmod 600)."
        )
    token = path.read_bytes().decode(errors="replace").strip()
    if len(token) < LEAST or not token.isascii() or not token.isprintable() or " " in token:
        raise InputError(
            f"{shown_path(path)} holds no token: at least {LEAST} ASCII characters without spaces.",
            hint="Remove the file, and a new token is made.",
        )
    return token


class Bearer:
    """Passes on only requests with the token.

    There is no OAuth to be advertised for it: clients would be sent to an authorization server that does not
    exist. So the answer says where the token is.
    """

    def __init__(self, app: ASGIApp, token: str, where: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()
        self._where = where

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._is_known(scope):
            await self._app(scope, receive, send)
        else:
            await self._refusal(scope)(scope, receive, send)

    def _is_known(self, scope: Scope) -> bool:
        scheme, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
        given = f"{scheme.capitalize()} {token.strip()}"
        return hmac.compare_digest(given.encode(), self._expected)

    def _refusal(self, scope: Scope) -> Response:
        given = "authorization" in Headers(scope=scope)
        problem = "The token is wrong" if given else "There is no token"
        said = f"{problem}: send the header 'Authorization: Bearer TOKEN'. {self._where}"
        body = refusal_body(scope, 401, "invalid_token", said)
        return Response(
            json.dumps(body),
            status_code=401,
            media_type="application/json",
            headers={"WWW-Authenticate": 'Bearer realm="backpropagate"'},
        )
