"""The web page on a real socket, in a thread of the test, and a client that behaves like a browser."""

from __future__ import annotations

import re
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2 as httpx
import uvicorn
from waiting import wait_until

from backpropagate.server.listen import bind
from backpropagate.training.config.settings import load_settings
from backpropagate.training.service import TrainingService
from backpropagate.web.app import build_app
from backpropagate.web.desk import LOGINS, LOGINS_PER_S, Desk
from backpropagate.web.guard import BURST, PER_S, Guard
from backpropagate.web.options import UiOptions
from backpropagate.web.passwords import accounts_of
from backpropagate.web.rate_limit import RateLimit
from backpropagate.web.serve import desk_for


@dataclass
class Page:
    """A page that is served.

    Args:
        client: with the cookies of one browser.
    """

    url: str
    desk: Desk
    guard: Guard
    client: httpx.Client

    @property
    def service(self) -> TrainingService:
        return self.desk.service

    @property
    def outputs(self) -> Path:
        return self.desk.outputs

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.client.get(f"{self.url}{path}", **more)

    def post(self, path: str, form: dict[str, str] | None = None, **more: Any) -> httpx.Response:
        """As a form of a page sends it."""
        headers = {"origin": self.url, **more.pop("headers", {})}
        data = {**({} if "csrf" in (form or {}) else {"csrf": self.token()}), **(form or {})}
        return self.client.post(f"{self.url}{path}", data=data, headers=headers, **more)

    def token(self) -> str:
        """The token that the forms of this browser's pages hold."""
        text = self.get("/login").text
        found = re.search(r'name="csrf" value="([0-9a-f]+)"', text)
        assert found, text
        return found[1]

    @contextmanager
    def new_browser(self) -> Generator[Page]:
        with httpx.Client(timeout=60) as client:
            yield replace(self, client=client)

    def calm_down(self) -> None:
        """As if nobody had asked for anything yet."""
        self.guard.requests = RateLimit(BURST, PER_S)
        self.desk.logins = RateLimit(LOGINS, LOGINS_PER_S)


@contextmanager
def serving_page(**options: Any) -> Generator[Page]:
    """Serve on a free port; the settings are those of the environment."""
    chosen = UiOptions(port=0, **options)
    listening = bind(chosen.host, 0)
    port = listening.getsockname()[1]
    desk = desk_for(load_settings(), chosen, accounts_of(chosen), port)
    guard = build_app(desk, chosen, port)
    config = uvicorn.Config(guard, log_config=None, access_log=False, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    wait_until(lambda: server.started, "the page")
    page = Page(f"http://127.0.0.1:{port}", desk, guard, httpx.Client(timeout=60))
    try:
        yield page
    finally:
        page.client.close()
        server.should_exit = True
        thread.join()
