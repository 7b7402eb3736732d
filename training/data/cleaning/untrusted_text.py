"""Text from a dataset, made safe to show: without control characters, without secrets, and short.

It stays untrusted: whoever shows it to a model must say so.
"""

from __future__ import annotations

import re

from .private_data import hide

HIDDEN_CHARACTERS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff0-\uffff"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Control characters, those that hide or reorder text, and the invisible tags."""

TRAINED, END, CUT = "\u27e6", "\u27e7", "\u2702"
"""Marks in a preview: what carries loss stands between the first two; the third is where the row is cut."""


def safe_line(text: str, limit: int) -> str:
    """One line of at most `limit` characters."""
    return shortened(" ".join(sanitized(text).split()), limit)


def sanitized(text: str) -> str:
    """Without control characters, marks of ours, and secrets."""
    return hide(HIDDEN_CHARACTERS.sub("", text))


def shortened(text: str, limit: int) -> str:
    """At most `limit` characters, with what was left out in the middle."""
    if len(text) <= limit:
        return text
    tail = limit // 3
    return f"{text[: limit - tail - 1]}…{text[len(text) - tail :]}"


def with_loss_marks(text: str, spans: list[tuple[int, int]], cut: int | None) -> str:
    """The text with its trained spans between marks, up to where it is cut."""
    end = len(text) if cut is None else cut
    parts: list[str] = []
    at = 0
    for start, stop in spans:
        if start >= end:
            break
        parts += [_plain(text[at:start]), TRAINED, _plain(text[start : min(stop, end)]), END]
        at = min(stop, end)
    parts.append(_plain(text[at:end]))
    return sanitized("".join(parts)) + ("" if cut is None else CUT)


def _plain(text: str) -> str:
    return re.sub(f"[{TRAINED}{END}{CUT}]", "?", text)
