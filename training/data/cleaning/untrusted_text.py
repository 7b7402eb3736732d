"""Text from a dataset, made safe for display: no control characters, no secrets, limited length.

It remains untrusted: callers that show it to a model must mark it as data.
"""

from __future__ import annotations

import re

from ... import untrusted
from ...untrusted import shortened
from .private_data import hide

TRAINED, END, CUT = "\u27e6", "\u27e7", "\u2702"
"""Marks in a preview: start and end of text that carries loss, and the position of truncation."""


def safe_line(text: str, limit: int) -> str:
    """The text, sanitized, as one line of at most `limit` characters."""
    return shortened(" ".join(sanitized(text).split()), limit)


def sanitized(text: str) -> str:
    """The text without control characters and with secrets hidden."""
    return hide(untrusted.sanitized(text))


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
