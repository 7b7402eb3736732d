"""Tells an answer while it is made, as events."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..events import Report, Said

EVERY_S = 0.05


def told(report: Report) -> Callable[[str], None]:
    """A function that is given the text so far, and reports what is new of it, at most 20 times a second."""
    length, reported_at = 0, float("-inf")

    def tell(text: str) -> None:
        nonlocal length, reported_at
        if len(text) <= length or time.monotonic() - reported_at < EVERY_S:
            return
        report(Said.of(text[length:]))
        length, reported_at = len(text), time.monotonic()

    return tell
