"""The signing keys of an authorization server: found by its metadata, kept, and fetched again if need be."""

from __future__ import annotations

import json
import math
import time
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import urlsplit

import anyio
import httpx2 as httpx

from ...training.logs import logger

LIFETIME_S = 600.0  # after which a key that the issuer has withdrawn is no longer accepted
LONGEST_LIFETIME_S = 3600.0  # while the issuer cannot be reached
PAUSE_S = 30.0  # between two fetches, whatever tokens ask for: they are not checked yet
TIMEOUT_S = 5.0
PUBLIC = ("RSA", "EC", "OKP")  # kinds of keys; a shared secret is none that an issuer shows
MOST_BYTES = 2**20
FOUND_AT = (  # RFC 8414, and OpenID Connect in both of its places
    "{origin}/.well-known/oauth-authorization-server{path}",
    "{origin}/.well-known/openid-configuration{path}",
    "{origin}{path}/.well-known/openid-configuration",
)


Key = dict[str, Any]
"""A JWK (RFC 7517)."""


class IssuerError(Exception):
    """The keys cannot be had; the sentence may be shown."""


class IssuerKeys:
    """The keys of one issuer.

    Args:
        issuer: its URL, exactly as its tokens and its metadata name it.
        pause_s: least time between two fetches.
    """

    def __init__(self, issuer: str, pause_s: float = PAUSE_S) -> None:
        self._issuer = issuer
        self._pause_s = pause_s
        self._lock = anyio.Lock()
        self._keys: list[Key] = []
        self._fetched_at = self._tried_at = -math.inf

    async def key(self, key_id: str | None) -> Key | None:
        """The key of this id; None if the issuer has none. A token without an id may mean an only key.

        Raises:
            IssuerError: the issuer cannot be reached, and what was fetched before is too old.
        """
        found = self._find(key_id)
        if found is None or self._age() > LIFETIME_S:
            async with self._lock:  # one fetch for all that wait
                await self._refresh(key_id)
            found = self._find(key_id)
        if self._age() > LONGEST_LIFETIME_S:
            raise IssuerError("The authorization server cannot be reached.")
        return found

    async def fetch(self) -> None:
        """Fetch the keys now.

        Raises:
            IssuerError: they cannot be had.
        """
        self._tried_at = time.monotonic()
        async with httpx.AsyncClient(timeout=TIMEOUT_S, follow_redirects=False) as client:
            with anyio.move_on_after(2 * TIMEOUT_S) as limit:
                self._keys = _signing_keys(await _json(client, await self._keys_url(client)))
                self._fetched_at = time.monotonic()
            if limit.cancelled_caught:
                raise IssuerError(f"{self._issuer} does not answer in time.")

    async def _refresh(self, key_id: str | None) -> None:
        """Fetch, if that is still needed and the last attempt was not just now; else the old keys stay."""
        needed = self._find(key_id) is None or self._age() > LIFETIME_S
        if not needed or time.monotonic() - self._tried_at < self._pause_s:
            return
        try:
            await self.fetch()
        except IssuerError as error:
            logger().warning("issuer_keys_not_fetched", reason=str(error))

    def _age(self) -> float:
        return time.monotonic() - self._fetched_at

    def _find(self, key_id: str | None) -> Key | None:
        if key_id is None:
            return self._keys[0] if len(self._keys) == 1 else None
        return next((key for key in self._keys if key.get("kid") == key_id), None)

    async def _keys_url(self, client: httpx.AsyncClient) -> str:
        parts = urlsplit(self._issuer)
        origin, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
        for place in dict.fromkeys(form.format(origin=origin, path=path) for form in FOUND_AT):
            metadata = await _json(client, place, needed=False)
            if metadata.get("issuer") == self._issuer and isinstance(metadata.get("jwks_uri"), str):
                return _as_safe(metadata["jwks_uri"], self._issuer)
        raise IssuerError(f"{self._issuer} has no metadata that names itself as issuer and its keys.")


def _as_safe(url: str, issuer: str) -> str:
    """The address of the keys, if nobody on the way can exchange them."""
    if urlsplit(url).scheme == "https" or _origin(url) == _origin(issuer):
        return url
    raise IssuerError(f"The keys of {issuer} are neither at its own address nor behind https.")


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


async def _json(client: httpx.AsyncClient, url: str, *, needed: bool = True) -> dict[str, Any]:
    """The object at this address; empty if there is none and none is needed."""
    try:
        async with client.stream("GET", url, headers={"accept": "application/json"}) as answer:
            if answer.status_code != HTTPStatus.OK:
                if needed:
                    raise IssuerError(f"{url} answers {answer.status_code}.")
                return {}
            body = bytearray()
            async for part in answer.aiter_bytes():
                body += part
                if len(body) > MOST_BYTES:
                    raise IssuerError(f"{url} answers more than {MOST_BYTES} bytes.")
        found: object = json.loads(body)
    except httpx.HTTPError as error:
        raise IssuerError(f"{url} cannot be reached ({type(error).__name__}).") from error
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict):
        return found  # pyright: ignore[reportUnknownVariableType]
    if needed:
        raise IssuerError(f"{url} does not answer a JSON object.")
    return {}


def _signing_keys(found: dict[str, Any]) -> list[Key]:
    shown: Any = found.get("keys")
    keys = cast("list[object]", shown if isinstance(shown, list) else [])
    usable = [cast("Key", key) for key in keys if isinstance(key, dict) and _can_sign(cast("Key", key))]
    if not usable:
        raise IssuerError("The authorization server shows no keys that can be used.")
    return usable


def _can_sign(key: Key) -> bool:
    return key.get("kty") in PUBLIC and key.get("use") in ("sig", None)
