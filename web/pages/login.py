"""Log in and out, where the page has passwords."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ...training.errors import InputError
from ..desk import desk_of, session_of
from ..guard import address_of
from ..look import page


async def show(request: Request, held: Mapping[str, str], error: InputError | None = None) -> Response:
    """The form."""
    status = 200 if error is None else 429 if "again in" in error.message else 401
    return page(request, "login.html", http_status=status, error=error, next=own_path(held.get("next", "/")))


async def submit(request: Request, form: Mapping[str, str]) -> Response:
    """Begin a session of the user."""
    desk = desk_of(request)
    wait_s = desk.logins.take(address_of(request.scope))
    user = form.get("user", "")
    if wait_s:
        desk.log.record(page="login", outcome="too many tries")
        raise InputError(f"Too many tries: try again in {max(1, round(wait_s))} s.", hint="Wait a little.")
    if not await desk.accounts.admits(user, form.get("password", "")):
        desk.log.record(page="login", outcome="refused")
        raise InputError("The name or the password is wrong.", hint="Try again.")
    desk.log.record(page="login", outcome="ok", user=user[:100])
    desk.sessions.end(session_of(request))
    request.state.session = desk.sessions.new(user)  # a new id: nobody can have planted it
    request.state.give_cookie = True
    return RedirectResponse(own_path(form.get("next", "")), 303)


async def leave(request: Request, form: Mapping[str, str]) -> Response:
    """End the session; its cookie is void."""
    desk = desk_of(request)
    desk.sessions.end(session_of(request))
    request.state.session = desk.sessions.new()
    request.state.give_cookie = True
    return RedirectResponse("/login" if desk.accounts else "/", 303)


def own_path(given: str) -> str:
    """A path of these pages; anything that could lead elsewhere becomes the first page."""
    plain = given.startswith("/") and not given.startswith(("//", "/\\")) and given.isprintable()
    return given if plain and "\\" not in given else "/"
