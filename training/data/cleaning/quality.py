"""What is poor about a row's text: broken characters, repetition, answers of nothing."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

from ..formats.messages import Recognised, texts_of
from ..formats.validity import turn_findings

MOJIBAKE = re.compile(
    "\u00c3[\u0080-\u00bf]|\u00c2[\u00a0-\u00bf]"
    "|\u00e2(?:\u20ac[\u2122\u0153\u009d\u201c\u201d\u00a6]|\u0080[\u0090-\u00bf])"
)
"""UTF-8 that was read as Latin-1 or Windows-1252: two characters in place of an accented letter."""

CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffd\ufeff\ud800-\udfff\ue000-\uf8ff]")
ORDINARY = bytes([9, 10, 13, *range(32, 127)])
"""The ASCII characters that are not in `CONTROL`."""

REPEATED_RATIO = 12
"""Prose compresses two to five times, code and tables up to ten; what compresses more repeats itself."""

LONG_ENOUGH = 200
"""Characters from which on compression says something."""

QUALITY_KINDS = frozenset(
    (
        "broken_text",
        "empty_turn",
        "one_sided",
        "repeated_role",
        "unanswered_end",
        "late_system",
        "repetitive",
        "too_short",
    )
)
"""What `quality="basic"` leaves out."""


def quality_findings(row: Recognised) -> Iterator[str]:
    """The kinds of findings that the row deserves, each once."""
    yield from turn_findings(row)
    texts = texts_of(row)
    if any(has_broken_text(text) for _, text in texts):
        yield "broken_text"
    learnt = [text for role, text in texts if role in ("assistant", "text")]
    if any(is_repetitive(text) for text in learnt):
        yield "repetitive"
    if learnt and all(len(text.strip()) < 2 for text in learnt) and not _is_choice(learnt):
        yield "too_short"


def has_broken_text(text: str) -> bool:
    """Whether the text holds characters that a wrong encoding or a binary file left behind."""
    if text.isascii():
        return bool(text.encode().translate(None, ORDINARY))
    return bool(MOJIBAKE.search(text) or CONTROL.search(text))


def is_repetitive(text: str) -> bool:
    """Whether the text is one phrase over and over, or one character."""
    data = text[:20_000].encode("utf-8", "replace")
    return len(data) >= LONG_ENOUGH and len(data) > REPEATED_RATIO * len(zlib.compress(data, 1))


def _is_choice(answers: list[str]) -> bool:
    """Single letters and digits are answers too: of a classifier or a multiple choice."""
    return all(answer.strip().isalnum() for answer in answers)
