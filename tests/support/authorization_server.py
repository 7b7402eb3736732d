"""A real authorization server on loopback: metadata, registration, codes with PKCE, and signed tokens."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jwt
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from mcp.server.auth.provider import (
    AccessToken,
    AuthorizationCode,
    AuthorizationParams,
    OAuthAuthorizationServerProvider,
    RefreshToken,
    construct_redirect_uri,
)
from mcp.server.auth.routes import build_metadata, create_auth_routes
from mcp.server.auth.settings import ClientRegistrationOptions, RevocationOptions
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from pydantic import AnyHttpUrl
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

LIFETIME_S = 600
SCOPES = ["runs:read", "runs:write", "admin"]


class AuthorizationServer(OAuthAuthorizationServerProvider[AuthorizationCode, RefreshToken, AccessToken]):
    """Says yes to whoever asks, as `user`.

    Args:
        url: where it is reached; its name as an issuer.

    Attributes:
        fetches: how often the keys were asked for.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.user = "ada"
        self.fetches = 0
        self.is_broken = False
        self.asked_scopes: list[list[str]] = []
        self._clients: dict[str, OAuthClientInformationFull] = {}
        self._codes: dict[str, AuthorizationCode] = {}
        self._keys: dict[str, Any] = {}
        self.rotate()

    # --- keys and tokens ---
    def rotate(self, *, elliptic: bool = False) -> None:
        """Sign with a new key, and show no other any more."""
        made = (
            ec.generate_private_key(ec.SECP256R1())
            if elliptic
            else rsa.generate_private_key(public_exponent=65537, key_size=2048)
        )
        self._keys = {secrets.token_hex(4): made}

    @property
    def key_id(self) -> str:
        return next(iter(self._keys))

    @property
    def key(self) -> Any:
        return self._keys[self.key_id]

    def shown_keys(self) -> dict[str, Any]:
        kinds: Any = jwt.algorithms
        of = kinds.RSAAlgorithm if isinstance(self.key, rsa.RSAPrivateKey) else kinds.ECAlgorithm
        shown = of.to_jwk(self.key.public_key(), as_dict=True)
        return {"keys": [{**shown, "kid": self.key_id, "use": "sig"}]}

    def token(
        self,
        audience: str,
        scopes: str = "runs:read runs:write",
        algorithm: str | None = None,
        **changed: Any,
    ) -> str:
        """A token for `user`; `changed` are claims that differ, None: that are missing."""
        now = int(time.time())
        claims = {
            "iss": self.url,
            "sub": self.user,
            "aud": audience,
            "scope": scopes,
            "client_id": "test",
            "iat": now,
            "exp": now + LIFETIME_S,
            **changed,
        }
        algorithm = algorithm or ("RS256" if isinstance(self.key, rsa.RSAPrivateKey) else "ES256")
        given = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(given, self.key, algorithm, headers={"kid": self.key_id})

    # --- the flow of the SDK's clients ---
    async def get_client(self, client_id: str) -> OAuthClientInformationFull | None:
        return self._clients.get(client_id)

    async def register_client(self, client_info: OAuthClientInformationFull) -> None:
        anything = client_info.model_copy(update={"scope": " ".join(SCOPES)})
        self._clients[str(client_info.client_id)] = anything

    async def authorize(self, client: OAuthClientInformationFull, params: AuthorizationParams) -> str:
        self.asked_scopes.append(params.scopes or [])
        code = AuthorizationCode(
            code=secrets.token_urlsafe(16),
            scopes=params.scopes or [],
            expires_at=time.time() + LIFETIME_S,
            client_id=str(client.client_id),
            code_challenge=params.code_challenge,
            redirect_uri=params.redirect_uri,
            redirect_uri_provided_explicitly=params.redirect_uri_provided_explicitly,
            resource=params.resource,
        )
        self._codes[code.code] = code
        return construct_redirect_uri(
            str(params.redirect_uri), code=code.code, state=params.state, iss=self.url
        )

    async def load_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: str
    ) -> AuthorizationCode | None:
        return self._codes.get(authorization_code)

    async def exchange_authorization_code(
        self, client: OAuthClientInformationFull, authorization_code: AuthorizationCode
    ) -> OAuthToken:
        code = self._codes.pop(authorization_code.code)
        scopes = " ".join(code.scopes)
        token = self.token(str(code.resource), scopes, client_id=client.client_id)
        return OAuthToken(access_token=token, expires_in=LIFETIME_S, scope=scopes)

    async def load_access_token(self, token: str) -> AccessToken | None:
        raise NotImplementedError  # only its own resources would ask

    async def load_refresh_token(
        self, client: OAuthClientInformationFull, refresh_token: str
    ) -> RefreshToken | None:
        return None

    async def exchange_refresh_token(
        self, client: OAuthClientInformationFull, refresh_token: RefreshToken, scopes: list[str]
    ) -> OAuthToken:
        raise NotImplementedError

    async def revoke_token(self, token: AccessToken | RefreshToken) -> None:
        raise NotImplementedError

    # --- what it serves ---
    def app(self) -> Starlette:
        url = AnyHttpUrl(self.url)
        registration = ClientRegistrationOptions(enabled=True, valid_scopes=SCOPES, default_scopes=SCOPES[:1])
        told = build_metadata(url, None, registration, RevocationOptions())
        metadata = {
            **told.model_dump(mode="json", exclude_none=True),
            "issuer": self.url,
            "jwks_uri": f"{self.url}/keys",
            "authorization_response_iss_parameter_supported": True,
        }

        async def show_metadata(_request: Request) -> Response:
            return JSONResponse(metadata)

        async def show_keys(_request: Request) -> Response:
            self.fetches += 1
            return Response(status_code=500) if self.is_broken else JSONResponse(self.shown_keys())

        own = [
            Route("/.well-known/oauth-authorization-server", show_metadata),
            Route("/keys", show_keys),
        ]
        return Starlette(
            routes=[*own, *create_auth_routes(self, url, client_registration_options=registration)]
        )


@contextmanager
def authorization_server() -> Iterator[AuthorizationServer]:
    """One that serves on a free port of loopback, in a thread."""
    config = uvicorn.Config(lambda: None, port=0, log_level="error")
    listening = config.bind_socket()
    issuer = AuthorizationServer(f"http://127.0.0.1:{listening.getsockname()[1]}")
    server = uvicorn.Server(uvicorn.Config(issuer.app(), log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield issuer
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
