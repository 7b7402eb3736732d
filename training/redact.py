"""Removes secrets from displayed, logged and recorded text."""

from __future__ import annotations

import re
from typing import Any

HIDDEN = "[hidden]"

TOKENS = re.compile(
    r"""\bhf_[A-Za-z0-9]{16,}            # Hugging Face
      | \bhf_(?:oauth|jwt)_[\w.-]{16,}   # Hugging Face, logged in through a browser
      | \bsk-[A-Za-z0-9_-]{16,}          # OpenAI, Anthropic
      | \b(?:AKIA|ASIA)[A-Z0-9]{16}\b    # AWS
      | \bgh[pousr]_[A-Za-z0-9]{20,}     # GitHub
    """,
    re.VERBOSE,
)
BEARER = re.compile(r"\b(Bearer\s+)[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE)
SIGNED = re.compile(
    r"\b((?:X-Amz-)?(?:Signature|Credential|Security-Token|Policy)=)[^\s&\"'<>]{8,}", re.IGNORECASE
)
"""Parameters of a signed URL, which grants access to anyone who has it."""
ASSIGNED = re.compile(
    r"""\b((?:password|passwd|secret|token|api[_-]?key)["']?\s*[=:]\s*["']?)[^\s"'&,;]{4,}""", re.IGNORECASE
)


CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069]")
"""Control characters, which a terminal or a reader would interpret instead of showing."""


def encodable(text: str) -> str:
    """`text` with escapes for what UTF-8 cannot encode: the bytes of a file name that is not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def scrub(text: str) -> str:
    """`text`, encodable, with every token, key and password replaced by `[hidden]`."""
    text = TOKENS.sub(HIDDEN, encodable(text))
    text = BEARER.sub(rf"\1{HIDDEN}", text)
    text = SIGNED.sub(rf"\1{HIDDEN}", text)
    return ASSIGNED.sub(rf"\1{HIDDEN}", text)


def scrub_all(value: Any) -> Any:
    """`value` with every string scrubbed, at any depth."""
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, dict):
        return {_key(key): scrub_all(item) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, list | tuple):
        return [scrub_all(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    return value


def _key(key: object) -> object:
    return encodable(key) if isinstance(key, str) else key


def cleaned(text: str, length: int = 1000) -> str:
    """Untrusted text on one line, without control characters, at most `length` characters long."""
    line = " ".join(CONTROL.sub("", encodable(text)).split())
    return line if len(line) <= length else line[: length - 1] + "…"


def looks_secret(text: str) -> bool:
    """Whether `text` contains a string that is almost certainly an access token or a key."""
    return bool(TOKENS.search(text) or BEARER.search(text))
