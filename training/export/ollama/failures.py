"""Errors of an Ollama server, each with the next step.

The server's messages are untrusted text: they stand beside the error, never in its sentence.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import NamedTuple

import httpx2

from ...errors import OllamaError
from ...redact import scrub
from .address import Address

UPDATE = "Update Ollama (https://ollama.com/download), then try again."
SERVER_LOG = "See Ollama's log for details (`journalctl -u ollama`, or ~/.ollama/logs/server.log)."


class Cause(NamedTuple):
    """A known cause: words in the message that identify it, a hint, and whether a retry may succeed."""

    words: tuple[str, ...]
    hint: str
    retryable: bool


CAUSES = (
    Cause(
        ("no space left", "not enough space", "disk quota", "not enough disk"),
        "Free disk space where Ollama keeps its models (OLLAMA_MODELS), then try again.",
        True,
    ),
    Cause(("path or modelfile are required",), UPDATE, False),
    Cause(("digest mismatch",), "The file was changed or damaged during the upload: try again.", True),
    Cause(("invalid model name",), "Choose another name: letters, digits, '-', '_' and '.'.", False),
    Cause(
        ("system memory", "out of memory", "insufficient memory"),
        "Stop other models (`ollama ps`, `ollama stop NAME`), or export with a smaller quantization.",
        True,
    ),
    Cause(("architecture",), "This Ollama does not know the model's architecture. " + UPDATE, False),
    Cause(("server busy", "loading model"), "The server is busy: try again in a moment.", True),
)
STATUSES = {
    401: Cause((), "The server requires a login: OLLAMA_HOST=https://user:password@host.", False),
    403: Cause((), "Access denied: check OLLAMA_HOST and any proxy in front of the server.", False),
    404: Cause((), "Check OLLAMA_HOST: no Ollama server seems to answer there.", False),
    413: Cause(
        (), "A proxy in front of the server limits uploads: set OLLAMA_HOST to the server itself.", False
    ),
    429: Cause((), "Try again in a moment.", True),
    502: Cause((), "Try again when the server behind the proxy is up.", True),
    503: Cause((), "The server is busy: try again in a moment.", True),
    504: Cause((), "Try again when the server behind the proxy is up.", True),
}


def refusal(doing: str, said: str, status: int | None = None) -> OllamaError:
    """The error for a server's message.

    Args:
        doing: what was asked of it: "create the model".
        status: HTTP status; None for an error in the middle of an answer.
    """
    if status is not None and 300 <= status < 400:
        return OllamaError(
            f"The Ollama server did not {doing}: it redirects (HTTP {status}); redirects are not followed.",
            hint="If you trust the address that it redirects to, set OLLAMA_HOST to it.",
        )
    cause = _cause(said, status)
    code = f" (HTTP {status})" if status is not None else ""
    return OllamaError(
        f"The Ollama server did not {doing}{code}.",
        hint=cause.hint,
        retryable=cause.retryable,
        untrusted=scrub(said),
    )


def _cause(said: str, status: int | None) -> Cause:
    words = said.casefold()
    for cause in CAUSES:
        if any(word in words for word in cause.words):
            return cause
    return STATUSES.get(status or 0, Cause((), SERVER_LOG, False))


def ended_early(doing: str) -> OllamaError:
    return OllamaError(
        f"The Ollama server's answer ended before it confirmed to {doing}.",
        hint=f"Try again. {SERVER_LOG}",
        retryable=True,
    )


def not_ollama(doing: str, address: Address) -> OllamaError:
    return OllamaError(
        f"The server at {address} did not {doing} as an Ollama server does.",
        hint="Check OLLAMA_HOST: it must name the Ollama server itself.",
    )


@contextmanager
def ollama_errors(doing: str, address: Address) -> Generator[None]:
    """Turns the HTTP library's errors into OllamaError."""
    try:
        yield
    except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
        raise OllamaError(
            f"No Ollama server answers at {address}.",
            hint="Start Ollama (its app, or `ollama serve`). If it runs on another machine, set "
            "OLLAMA_HOST in the environment of this program.",
            cause=error,
            retryable=True,
        ) from error
    except httpx2.TimeoutException as error:
        raise OllamaError(
            f"The Ollama server at {address} did not {doing} in time.",
            hint=f"Try again. {SERVER_LOG}",
            cause=error,
            retryable=True,
        ) from error
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, UnicodeError) as error:
        raise OllamaError(
            f"OLLAMA_HOST is not a valid address ({type(error).__name__}).",
            hint="Set it to host:port or to an http:// or https:// URL.",
            cause=error,
        ) from error
    except (httpx2.RequestError, httpx2.StreamError) as error:
        raise OllamaError(
            f"The connection to the Ollama server at {address} was lost before it could {doing} "
            f"({type(error).__name__}).",
            hint=f"Try again. {SERVER_LOG}",
            cause=error,
            retryable=True,
        ) from error
