"""What stands before every page: the limits of requests, whose page it is, and how a browser must treat it.

A page of another site can make a browser send requests here, also to 127.0.0.1, and can give its own name
this machine's address. So Host must be ours, and what changes something must come from a page of ours
(Origin); the form's token is checked where the form is read.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .rate_limit import RateLimit

SAFE = ("GET", "HEAD")
FORM_BYTES = 2**20
BURST, PER_S = 150, 40  # requests of one address; a page takes six
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # with no-referrer, browsers send no Origin with forms
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
}


READ_AWAY, READ_AWAY_S = 2 * FORM_BYTES, 1.0


class TooLargeError(Exception):
    """The body is longer than its limit."""


class Guard:
    """Passes on only requests that a page of ours, or a person who types its address, can have made.

    Args:
        is_own_host: whether a Host names this page.
        limit_of: the most bytes of a body, by its path.
        refused: told of each refusal: its status and reason.
    """

    def __init__(
        self,
        app: ASGIApp,
        is_own_host: Callable[[str], bool],
        limit_of: Callable[[str], int],
        refused: Callable[[int, str], None],
    ) -> None:
        self._app, self._is_own_host, self._limit_of, self._refused = app, is_own_host, limit_of, refused
        self.requests = RateLimit(BURST, PER_S)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # there are no other kinds of connection here

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message["headers"])
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            self._refused(refusal.status_code, bytes(refusal.body).decode())
            await _read_away(receive)
            await refusal(scope, receive, send_with_headers)
            return
        limit = self._limit_of(scope["path"])
        await self._app(scope, _limited(receive, limit), send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        wait_s = self.requests.take(address_of(scope))
        if wait_s:
            return _no(429, "Too many requests.", {"retry-after": str(max(1, round(wait_s)))})
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_own_host(hosts[0].lower()):
            return _no(421, "This page has another name.")
        if scope["method"] not in (*SAFE, "POST"):
            return _no(405, "Only GET and POST.", {"allow": "GET, HEAD, POST"})
        if not _is_from_own_page(scope["method"], headers, hosts[0].lower()):
            return _no(403, "The request does not come from a page of this server.")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._limit_of(scope["path"]):
            return _no(413, f"The request is larger than {self._limit_of(scope['path']):,} bytes.")
        return None


def address_of(scope: Scope) -> str:
    """The address of the other side; of a tunnel, that of its end here."""
    client = scope.get("client")
    return client[0] if client else ""


def _is_from_own_page(method: str, headers: Headers, host: str) -> bool:
    origins = headers.getlist("origin")
    if any(_host_of(origin) != host for origin in origins):
        return False
    site = headers.get("sec-fetch-site", "same-origin")
    if method in SAFE:
        is_visit = headers.get("sec-fetch-mode", "navigate") == "navigate"
        return is_visit or site in ("same-origin", "none")
    return len(origins) == 1 and site == "same-origin"


def _host_of(origin: str) -> str:
    try:
        parts = urlsplit(origin.lower())
    except ValueError:
        return ""
    return parts.netloc if parts.scheme in ("http", "https") and not parts.path else ""


def _limited(receive: Receive, limit: int) -> Receive:
    """`receive` that stops at the limit, for a body that does not tell its length."""
    got = 0

    async def counted() -> Message:
        nonlocal got
        message = await receive()
        got += len(message.get("body", b""))
        if got > limit:
            raise TooLargeError(f"The request is larger than {limit:,} bytes.")
        return message

    return counted


async def _read_away(receive: Receive) -> None:
    """Read the body of a refused request, if it is short: else a client may lose the answer."""
    got, more = 0, True
    with anyio.move_on_after(READ_AWAY_S):
        while more and got < READ_AWAY:
            message = await receive()
            got += len(message.get("body", b""))
            more = message.get("more_body", False)


def _no(status: int, reason: str, headers: dict[str, str] | None = None) -> Response:
    return PlainTextResponse(reason, status, {"connection": "close"} | (headers or {}))
