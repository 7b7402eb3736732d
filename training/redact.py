"""Keeps secrets out of everything that is shown, logged or written down."""

from __future__ import annotations

import re

HIDDEN = "[hidden]"

TOKENS = re.compile(
    r"""\bhf_[A-Za-z0-9]{16,}            # Hugging Face
      | \bsk-[A-Za-z0-9_-]{16,}          # OpenAI, Anthropic
      | \b(?:AKIA|ASIA)[A-Z0-9]{16}\b    # AWS
      | \bgh[pousr]_[A-Za-z0-9]{20,}     # GitHub
    """,
    re.VERBOSE,
)
BEARER = re.compile(r"\b(Bearer\s+)[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE)
ASSIGNED = re.compile(
    r"""\b((?:password|passwd|secret|token|api[_-]?key)["']?\s*[=:]\s*["']?)[^\s"'&,;]{4,}""", re.IGNORECASE
)


def scrub(text: str) -> str:
    """`text` with every token, key and password replaced by `[hidden]`."""
    text = TOKENS.sub(HIDDEN, text)
    text = BEARER.sub(rf"\1{HIDDEN}", text)
    return ASSIGNED.sub(rf"\1{HIDDEN}", text)


def looks_secret(text: str) -> bool:
    """Whether `text` holds something that is almost certainly an access token or a key."""
    return bool(TOKENS.search(text) or BEARER.search(text))
