"""Text from a dataset, made safe for display: no control characters, no secrets, limited length.

It remains untrusted: callers that show it to a model must mark it as data.
"""

from __future__ import annotations

import re

from .private_data import hide

HIDDEN_CHARACTERS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff0-\uffff"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Control characters, characters that hide or reorder text, and invisible tag characters."""

TRAINED, END, CUT = "\u27e6", "\u27e7", "\u2702"
"""Marks in a preview: start and end of text that carries loss, and the position of truncation."""


def safe_line(text: str, limit: int) -> str:
    """The text, sanitized, as one line of at most `limit` characters."""
    return shortened(" ".join(sanitized(text).split()), limit)


def sanitized(text: str) -> str:
    """The text without control characters and with secrets hidden."""
    return hide(HIDDEN_CHARACTERS.sub("", text))


def shortened(text: str, limit: int) -> str:
    """At most `limit` characters; a longer text is cut in the middle."""
    if len(text) <= limit:
        return text
    tail = limit // 3
    return f"{text[: limit - tail - 1]}…{text[len(text) - tail :]}"


def with_loss_marks(text: str, spans: list[tuple[int, int]], cut: int | None) -> str:
    """The sanitized text with marks around its trained spans, up to character `cut`."""
    end = len(text) if cut is None else cut
    parts: list[str] = []
    at = 0
    for start, stop in spans:
        if start >= end:
            break
        parts += [_without_marks(text[at:start]), TRAINED, _without_marks(text[start : min(stop, end)]), END]
        at = min(stop, end)
    parts.append(_without_marks(text[at:end]))
    return sanitized("".join(parts)) + ("" if cut is None else CUT)


def _without_marks(text: str) -> str:
    """Marks in the data itself would be mistaken for ours."""
    return re.sub(f"[{TRAINED}{END}{CUT}]", "?", text)
