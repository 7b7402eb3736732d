"""Sessions in signed cookies, and the token by which a form shows that it comes from one of their pages."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass

import jwt

LASTS_S = 12 * 3600
ALGORITHM = "HS256"
ENDED_KEPT = 1000


@dataclass(frozen=True)
class Session:
    """One browser.

    Args:
        user: who has logged in; empty before, and where no password is asked for.
    """

    id: str
    user: str = ""


class Sessions:
    """Makes and reads sessions. The key is made anew with each start: cookies of an earlier one are void."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._ended: OrderedDict[str, None] = OrderedDict()

    def new(self, user: str = "") -> Session:
        return Session(secrets.token_urlsafe(24), user)

    def cookie(self, session: Session) -> str:
        """The signed value of the cookie."""
        claims = {"sid": session.id, "user": session.user, "exp": int(time.time()) + LASTS_S}
        return jwt.encode(claims, self._key, ALGORITHM)

    def read(self, cookie: str) -> Session | None:
        """The session of a cookie; None if it is forged, too old, or was ended."""
        try:
            claims = jwt.decode(cookie, self._key, [ALGORITHM], options={"require": ["exp", "sid", "user"]})
        except jwt.InvalidTokenError:
            return None
        session = Session(str(claims["sid"]), str(claims["user"]))
        return None if session.id in self._ended else session

    def end(self, session: Session) -> None:
        """Nobody can use its cookie any more."""
        self._ended[session.id] = None
        if len(self._ended) > ENDED_KEPT:
            self._ended.popitem(last=False)

    def form_token(self, session: Session) -> str:
        """What each form of the session's pages holds; other sites cannot know it."""
        return hmac.new(self._key, b"form " + session.id.encode(), hashlib.sha256).hexdigest()

    def is_form_token(self, session: Session, given: str) -> bool:
        return hmac.compare_digest(self.form_token(session).encode(), given.encode("utf-8", "replace"))
