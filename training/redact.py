"""Removes secrets from displayed, logged and recorded text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .secret_patterns import FoundSecret

HIDDEN = "[hidden]"


def scrub(text: str) -> str:
    """`text` with every token, key and password replaced by `[hidden]`."""
    parts: list[str] = []
    at = 0
    for start, end in sorted((found.start, found.end) for found in _found(text)):
        if start >= at:
            parts += [text[at:start], HIDDEN]
        at = max(at, end)
    return "".join([*parts, text[at:]])


def scrub_all(value: Any) -> Any:
    """`value` with every string scrubbed, at any depth."""
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, dict):
        return {key: scrub_all(item) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list | tuple):
        return [scrub_all(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    return value


def looks_secret(text: str) -> bool:
    """Whether `text` contains a string that is almost certainly an access token, a key or a password."""
    return any(found.certain for found in _found(text))


def _found(text: str) -> Iterator[FoundSecret]:
    # Here: the patterns are compiled with the first text, and not while a server starts.
    from .secret_patterns import found_secrets

    return found_secrets(text)
