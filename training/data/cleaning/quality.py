"""Quality findings of a row: broken characters, repetition, answers without content, unusual turns."""

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
"""UTF-8 decoded as Latin-1 or Windows-1252: two characters instead of an accented letter."""

CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffd\ufeff\ud800-\udfff\ue000-\uf8ff]")
PRINTABLE = bytes([9, 10, 13, *range(32, 127)])
"""The ASCII characters that are not in `CONTROL`."""

REPEATED_RATIO = 12
"""Compression ratio of repetitive text. Prose has 2 to 5, code and tables up to 10."""

MIN_BYTES = 200
"""Shorter texts are not tested: their compression ratio is not meaningful."""

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
"""Rows with one of these findings are dropped by `quality="basic"`."""


def quality_findings(row: Recognised) -> Iterator[str]:
    """The kinds of findings of the row, each once."""
    yield from turn_findings(row)
    texts = texts_of(row)
    if any(has_broken_text(text) for _, text in texts):
        yield "broken_text"
    trained = [text for role, text in texts if role in ("assistant", "text")]
    if any(is_repetitive(text) for text in trained):
        yield "repetitive"
    if trained and all(len(text.strip()) < 2 for text in trained) and not _is_choice(trained):
        yield "too_short"


def has_broken_text(text: str) -> bool:
    """Whether the text has characters of a wrong encoding or of a binary file."""
    if text.isascii():
        return bool(text.encode().translate(None, PRINTABLE))
    return bool(MOJIBAKE.search(text) or CONTROL.search(text))


def is_repetitive(text: str) -> bool:
    """Whether the text repeats one phrase or one character many times."""
    data = text[:20_000].encode("utf-8", "replace")
    return len(data) >= MIN_BYTES and len(data) > REPEATED_RATIO * len(zlib.compress(data, 1))


def _is_choice(answers: list[str]) -> bool:
    """Whether the answers are single letters or digits, as for classification or multiple choice."""
    return all(answer.strip().isalnum() for answer in answers)
