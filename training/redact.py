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


def scrub(text: str) -> str:
    """`text` with every token, key and password replaced by `[hidden]`."""
    text = TOKENS.sub(HIDDEN, text)
    text = BEARER.sub(rf"\1{HIDDEN}", text)
    text = SIGNED.sub(rf"\1{HIDDEN}", text)
    return ASSIGNED.sub(rf"\1{HIDDEN}", text)


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
    """Whether `text` contains a string that is almost certainly an access token or a key."""
    return bool(TOKENS.search(text) or BEARER.search(text))
