"""Gives each browser its session, and lets in only those that have logged in, where there are passwords."""

from __future__ import annotations

from http.cookies import CookieError, SimpleCookie
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders, State
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .desk import Desk
from .options import TUNNELS
from .session import LASTS_S, Session

OPEN = ("/login", "/static/")


class Admit:
    """Passes on only requests with a session that may see the page."""

    def __init__(self, app: ASGIApp, desk: Desk) -> None:
        self._app, self._desk = app, desk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        known = self._session(headers)
        state = scope.setdefault("state", {})
        state |= {"session": known or self._desk.sessions.new(), "give_cookie": False}
        if known is None and scope["method"] == "POST":
            await _no_session()(scope, receive, send)
            return
        is_secure = headers.get("host", "").lower().endswith(TUNNELS)

        async def send_with_cookie(message: Message) -> None:
            is_page = message["type"] == "http.response.start" and not scope["path"].startswith("/static/")
            if is_page and (known is None or State(state).give_cookie):
                cookie = self._cookie(State(state).session, is_secure)
                MutableHeaders(raw=message["headers"]).append("set-cookie", cookie)
            await send(message)

        if self._is_admitted(known, scope["path"]):
            await self._app(scope, receive, send_with_cookie)
        else:
            await self._to_login(scope)(scope, receive, send_with_cookie)

    def _is_admitted(self, session: Session | None, path: str) -> bool:
        return not self._desk.accounts or bool(session and session.user) or path.startswith(OPEN)

    def _to_login(self, scope: Scope) -> Response:
        if scope["path"].endswith("/stream"):
            return PlainTextResponse("Log in first.", 401)
        return RedirectResponse(f"/login?next={quote(scope['path'])}", 303)

    def _session(self, headers: Headers) -> Session | None:
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(self._desk.cookie)
        except CookieError:
            return None
        return self._desk.sessions.read(cookie.value) if cookie else None

    def _cookie(self, session: Session, secure: bool) -> str:
        value = self._desk.sessions.cookie(session)
        rules = f"Path=/; Max-Age={LASTS_S}; HttpOnly; SameSite=Strict"
        return f"{self._desk.cookie}={value}; {rules}{'; Secure' if secure else ''}"


def _no_session() -> Response:
    return PlainTextResponse("There is no session: open the page again.", 403)
