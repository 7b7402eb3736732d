"""Checks an access token: its signature, issuer, audience, expiry, subject and scopes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jwt
from jwt import PyJWK
from jwt.exceptions import (
    ExpiredSignatureError,
    ImmatureSignatureError,
    InvalidAudienceError,
    InvalidIssuerError,
    MissingRequiredClaimError,
    PyJWTError,
)

from .issuer import IssuerKeys

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Of public keys only: with a shared secret or none, whoever knows the public key could sign."""

LEEWAY_S = 30  # between the clocks of two machines
LONGEST = 16_384  # characters; more than any header that servers accept
REASONS: dict[type[PyJWTError], str] = {
    ExpiredSignatureError: "The token has expired",
    ImmatureSignatureError: "The token is not valid yet",
    InvalidAudienceError: "The token is for another audience",
    InvalidIssuerError: "The token is of another issuer",
    MissingRequiredClaimError: "The token lacks one of: exp, iss, aud, sub",
}


class TokenRefusedError(Exception):
    """The token is not accepted; the sentence may be shown."""


@dataclass(frozen=True)
class Access:
    """What a token permits.

    Args:
        client: the client that the token was issued to, as far as the issuer tells.
    """

    issuer: str
    subject: str
    client: str
    scopes: tuple[str, ...]
    expires_at: int

    @property
    def principal(self) -> str:
        """A subject is unique for its issuer only."""
        return f"{self.issuer} {self.subject}"


@dataclass(frozen=True)
class TokenCheck:
    """Checks tokens of one issuer for one audience."""

    issuer: str
    audience: str
    keys: IssuerKeys

    async def access(self, token: str) -> Access:
        """What the token permits.

        Raises:
            TokenRefusedError: it is not accepted.
            IssuerError: the issuer's keys cannot be had.
        """
        header = _header(token)
        key = await self.keys.key(header.key_id)
        if key is None:
            raise TokenRefusedError("The token is signed by a key that the issuer does not show")
        try:
            # An RSA key that does not name its algorithm is for the token's.
            algorithm = key.get("alg") or header.algorithm
            claims = jwt.decode(
                token,
                PyJWK(key, algorithm),
                algorithms=[each for each in ALGORITHMS if each == algorithm],
                audience=self.audience,
                issuer=self.issuer,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except PyJWTError as error:
            raise TokenRefusedError(REASONS.get(type(error), "The token is not valid")) from error
        return _access(claims)


class _Header(NamedTuple):
    algorithm: str
    key_id: str | None


def _header(token: str) -> _Header:
    try:
        if len(token) > LONGEST:
            raise TokenRefusedError("The token is too long")
        header = jwt.get_unverified_header(token)
    except PyJWTError as error:
        raise TokenRefusedError("The token is no signed JWT") from error
    if header.get("alg") not in ALGORITHMS:
        raise TokenRefusedError("The token is not signed by an algorithm of public keys")
    key_id = header.get("kid")
    return _Header(header["alg"], key_id if isinstance(key_id, str) else None)


def _access(claims: dict[str, Any]) -> Access:
    subject: str = claims["sub"]
    if not subject:
        raise TokenRefusedError("The token names no subject")
    client = claims.get("client_id") or claims.get("azp")
    return Access(
        claims["iss"],
        subject,
        client if isinstance(client, str) else subject,
        _scopes(claims),
        int(claims["exp"]),
    )


def _scopes(claims: dict[str, Any]) -> tuple[str, ...]:
    """RFC 9068's `scope`, or the `scp` of some issuers."""
    given: Any = claims.get("scope", claims.get("scp", ""))
    if isinstance(given, str):
        return tuple(given.split())
    return tuple(map(str, given)) if isinstance(given, list) else ()  # pyright: ignore[reportUnknownArgumentType]
