"""An OAuth 2.1 resource server: passes on only requests whose access token permits them.

It tells clients where to get a token (RFC 9728), and by a challenge with `scope` which rights they lack: 401
without a token that counts, 403 where the rights of a token are too small for this request.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.routes import build_resource_metadata_url
from pydantic import AnyHttpUrl
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ...training.errors import InputError
from ...training.untrusted import quoted
from ..listen import is_loopback
from ..principal import PRINCIPAL
from .access_token import Access, TokenCheck, TokenRefusedError
from .issuer import IssuerError
from .refusal import is_openai, refusal_body
from .request_body import BodyError, again, message_in, read_body
from .scopes import ADMIN, READ, WRITE, permits, scope_of, up_to

RETRY_AFTER_S = 30


def require_url(url: str, option: str) -> str:
    """`url`, if tokens and keys are safe on the way to it.

    Raises:
        InputError: it is no address, or not protected by TLS.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise InputError(f"{option}: {quoted(url)} is not the URL of a server.", hint="Give https://…")
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise InputError(f"{option}: {quoted(url)} has no TLS.", hint="Give its https:// address.")
    return url


class _Refusal(Exception):
    def __init__(self, status: int, error: str, description: str, scope: str | None = None) -> None:
        super().__init__(description)
        self.status, self.error, self.description, self.scope = status, error, description, scope


class OAuth:
    """Guards an application by access tokens.

    Args:
        check: checks tokens.
        url: of the MCP endpoint, as clients know it.
        read_only: whether no tool changes anything, so that clients need ask for no more than reading.
    """

    def __init__(self, app: ASGIApp, check: TokenCheck, url: str, *, read_only: bool = False) -> None:
        self._app = app
        self._check = check
        self._first = " ".join(up_to(READ if read_only else WRITE))
        self._metadata_url = str(build_resource_metadata_url(AnyHttpUrl(url)))
        metadata = {
            "resource": url,
            "authorization_servers": [check.issuer],
            "scopes_supported": list(up_to(READ if read_only else ADMIN)),
            "bearer_methods_supported": ["header"],
            "resource_name": "backpropagate",
        }
        # Anybody may read where tokens come from, a client in a web page too.
        self._metadata = CORSMiddleware(JSONResponse(metadata), allow_origins=["*"], allow_headers=["*"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["path"] == urlsplit(self._metadata_url).path:
            await self._metadata(scope, receive, send)
        else:
            await self._guarded(scope, receive, send)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            access = await self._access(scope)
            if is_openai(scope):
                _require(access, READ if scope["method"] in ("GET", "HEAD") else WRITE)
                await self._app(_of(access, scope), receive, send)
                return
            body = await read_body(receive)
            needed = scope_of(message_in(body)) if scope["method"] == "POST" else READ
            _require(access, needed)
        except _Refusal as refusal:
            await self._answer(refusal, scope)(scope, receive, send)
        except BodyError as error:
            refused = JSONResponse(
                {"error": "invalid_request", "error_description": str(error)}, error.status
            )
            await refused(scope, receive, send)
        else:
            await self._app(_of(access, scope), again(body, receive), send)

    async def _access(self, scope: Scope) -> Access:
        kind, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
        if kind.casefold() != "bearer" or not token.strip():
            raise _Refusal(401, "", "There is no token: send 'Authorization: Bearer TOKEN'", self._first)
        try:
            return await self._check.access(token.strip())
        except TokenRefusedError as error:
            raise _Refusal(401, "invalid_token", str(error), self._first) from error
        except IssuerError as error:
            raise _Refusal(503, "temporarily_unavailable", str(error)) from error

    def _answer(self, refusal: _Refusal, scope: Scope) -> Response:
        error = refusal.error or "invalid_request"
        body = refusal_body(scope, refusal.status, error, refusal.description)
        if refusal.scope is None:
            return JSONResponse(body, refusal.status, {"Retry-After": str(RETRY_AFTER_S)})
        # Without a token there is no error to tell of, as RFC 6750 says.
        told = {"error": refusal.error, "error_description": refusal.description} if refusal.error else {}
        parts = {**told, "scope": refusal.scope, "resource_metadata": self._metadata_url}
        challenge = ", ".join(f'{name}="{value}"' for name, value in parts.items())
        return JSONResponse(body, refusal.status, {"WWW-Authenticate": f"Bearer {challenge}"})


def _require(access: Access, needed: str) -> None:
    if not permits(access.scopes, needed):
        said = f"This request needs the scope {needed}"
        raise _Refusal(403, "insufficient_scope", said, " ".join(up_to(needed)))


def _of(access: Access, scope: Mapping[str, object]) -> Scope:
    """The request's scope with its principal, and with the user that the SDK binds a session to."""
    token = AccessToken(
        token="",
        client_id=access.client,
        scopes=list(access.scopes),
        expires_at=access.expires_at,
        subject=access.subject,
        claims={"iss": access.issuer},
    )
    return {**scope, PRINCIPAL: access.principal, "user": AuthenticatedUser(token)}
