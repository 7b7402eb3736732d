"""An Ollama server's HTTP API (https://github.com/ollama/ollama/blob/main/docs/api.md): what is needed of it.

Calls that may take long run in a thread, so that a run can be cancelled while it waits for the server.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx2

from ...events import Phase, Report, ShouldStop, never_stop
from ...files.background_call import background_call
from ...files.regular_file import open_permitted
from ...untrusted import short_name
from .address import Address
from .failures import ended_early, not_ollama, ollama_errors, refusal

T = TypeVar("T")

CONNECT_S = 5.0
ANSWER_S = 30.0  # for a short question
PATIENCE_S = 600.0  # between two pieces of a long answer: a large file is checked, a large model is loaded
WRITE_S = 60.0
CHUNK = 1 << 20  # bytes
LINE_LIMIT = 1 << 20  # bytes
ANSWER_LIMIT = 32 << 20  # bytes
REFUSAL_LIMIT = 16 << 10  # bytes


class OllamaServer:
    """One server; use it in a `with` statement.

    Args:
        should_stop: looked at while waiting; True leaves the call behind with TrainingAbortedError.

    Every method raises OllamaError when the server cannot be reached, refuses, or answers differently
    from Ollama.
    """

    def __init__(self, address: Address, should_stop: ShouldStop = never_stop) -> None:
        self.address = address
        self._should_stop = should_stop
        self._long = httpx2.Timeout(PATIENCE_S, connect=CONNECT_S, write=WRITE_S, pool=CONNECT_S)
        with ollama_errors("be reached", address):
            self._client = httpx2.Client(
                base_url=address.url,
                auth=address.user_info,
                timeout=httpx2.Timeout(ANSWER_S, connect=CONNECT_S),
                verify=_certificates(),
                follow_redirects=False,
                # A proxy of the environment cannot reach this machine; elsewhere it is how to get out.
                trust_env=not address.is_local,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def version(self) -> str:
        """E.g. `0.30.1`."""
        found = self._asked("report its version", "GET", "/api/version").get("version")
        if not isinstance(found, str):
            raise not_ollama("report its version", self.address)
        return short_name(found)

    def models(self) -> dict[str, str]:
        """The names of its models, and the digest of each."""
        models: Any = self._asked("list its models", "GET", "/api/tags").get("models") or []
        named = [model for model in models if isinstance(model.get("name"), str)]
        return {model["name"]: str(model.get("digest") or "") for model in named}

    def copy(self, source: str, target: str) -> None:
        """Give a model a second name; another model of that name is replaced."""
        names = {"source": source, "destination": target}
        with self._exchange("name the model", "POST", "/api/copy", json=names, timeout=self._long):
            pass

    def template_of(self, name: str) -> str:
        """The template that it lays a model's conversations out with."""
        return str(
            self._asked("describe the model", "POST", "/api/show", {"model": name}).get("template") or ""
        )

    def delete(self, name: str) -> None:
        with self._exchange("delete the model", "DELETE", "/api/delete", json={"model": name}):
            pass

    def has_blob(self, digest: str) -> bool:
        """Whether it has a file of this digest (`sha256:…`) already."""
        with ollama_errors("look for the file", self.address):
            status = self._client.head(f"/api/blobs/{digest}").status_code
        if status not in {200, 404}:
            raise refusal("look for the file", "", status)
        return status == 200

    def upload(self, path: Path, digest: str, report: Report) -> None:
        """Send a file, a piece at a time; `report` takes the progress."""
        size = path.stat().st_size
        sent = 0

        def pieces() -> Iterator[bytes]:
            nonlocal sent
            with open(open_permitted(path), "rb") as file:
                while (piece := file.read(CHUNK)) and not self._should_stop():
                    yield piece
                    sent += len(piece)

        def send() -> None:
            with self._exchange(
                "take the file",
                "POST",
                f"/api/blobs/{digest}",
                content=pieces(),
                headers={"Content-Length": str(size)},
                timeout=self._long,
            ):
                pass

        def report_bytes() -> None:
            message = f"uploading {sent / 1e6:,.0f} of {size / 1e6:,.0f} MB"
            report(Phase(phase="uploading", message=message, fraction=sent / size))

        report_bytes()
        self._waited_for(send, report_bytes)

    def create(self, request: Mapping[str, Any], on_step: Callable[[str], None]) -> list[str]:
        """Make a model.

        Args:
            request: the body of /api/create.
            on_step: called several times a second with the step that the server is at; may be empty.

        Returns:
            The server's steps; the last is "success".
        """
        steps: list[str] = []

        def read() -> None:
            for line in self._lines("create the model", "/api/create", request):
                steps.append(str(line.get("status", "")))

        def pass_on() -> None:
            on_step(steps[-1] if steps else "")

        pass_on()
        self._waited_for(read, pass_on)
        if "success" not in steps:
            raise ended_early("create the model")
        return steps

    def chat(self, name: str, messages: Sequence[Mapping[str, str]], max_new_tokens: int) -> str:
        """The model's answer, greedily chosen; its thoughts if it did not get further."""
        options = {"temperature": 0, "num_predict": max_new_tokens}
        request = {"model": name, "messages": list(messages), "options": options}
        said: dict[str, list[str]] = {"content": [], "thinking": []}

        def read() -> bool:
            done = False
            for line in self._lines("answer a question", "/api/chat", request):
                message: Any = line.get("message") or {}
                for part, texts in said.items():
                    texts.append(str(message.get(part) or ""))
                done = done or line.get("done") is True
            return done

        if not self._waited_for(read):
            raise ended_early("answer a question")
        return "".join(said["content"]).strip() or "".join(said["thinking"]).strip()

    # --- one exchange -------------------------------------------------------------------------------
    def _waited_for(self, work: Callable[[], T], while_waiting: Callable[[], None] = lambda: None) -> T:
        return background_call(work, self._should_stop, while_waiting=while_waiting)

    @contextmanager
    def _exchange(self, doing: str, method: str, path: str, **how: Any) -> Generator[httpx2.Response]:
        with ollama_errors(doing, self.address), self._client.stream(method, path, **how) as response:
            if not response.is_success:
                raise refusal(doing, _said(response), response.status_code)
            yield response

    def _asked(
        self, doing: str, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        with self._exchange(doing, method, path, json=body) as response:
            found = _parsed(_read(response, ANSWER_LIMIT))
        if found is None:
            raise not_ollama(doing, self.address)
        return found

    def _lines(self, doing: str, path: str, request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The objects of an answer that comes line by line; raises the error that one of them may be."""
        with self._exchange(
            doing, "POST", path, json={**request, "stream": True}, timeout=self._long
        ) as response:
            for line in _split(response):
                found = _parsed(line)
                if found is None:
                    raise not_ollama(doing, self.address)
                if "error" in found:
                    raise refusal(doing, str(found["error"]))
                yield found


@cache
def _certificates() -> ssl.SSLContext:
    """Read once: that takes longer than all that is said to a server."""
    return httpx2.create_ssl_context()


def _split(response: httpx2.Response) -> Iterator[bytes]:
    """The answer's lines; a line without end is cut."""
    rest = b""
    for piece in response.iter_bytes():
        *lines, rest = (rest + piece).split(b"\n")
        yield from (line for line in lines if line.strip())
        if len(rest) > LINE_LIMIT:
            break
    if rest.strip():
        yield rest


def _read(response: httpx2.Response, limit: int) -> bytes:
    body = b""
    for piece in response.iter_bytes():
        body += piece
        if len(body) > limit:
            break
    return body[:limit]


def _said(response: httpx2.Response) -> str:
    """The reason for a refusal: Ollama's `{"error": …}`, or whatever else answered."""
    body = _read(response, REFUSAL_LIMIT)
    found = _parsed(body)
    return str(found["error"]) if found and "error" in found else body.decode("utf-8", "replace")


def _parsed(text: bytes) -> dict[str, Any] | None:
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None  # pyright: ignore[reportUnknownVariableType]
