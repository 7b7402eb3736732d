"""Tells a model card that this program wrote, and nobody has changed since, from somebody's own."""

from __future__ import annotations

import hashlib
import re

MARK = re.compile(r"\n*<!-- Written by backpropagate\. Text above: sha256 ([0-9a-f]{64}) -->\s*\Z")


def marked(card: str) -> str:
    """The card with a hash of its text at its end, which no reader sees."""
    return f"{card.rstrip()}\n\n<!-- Written by backpropagate. Text above: sha256 {_digest(card)} -->\n"


def is_unchanged(card: str) -> bool:
    """Whether the card was written by `marked`, and nobody has edited it."""
    text = card.replace("\r\n", "\n")
    mark = MARK.search(text)
    return mark is not None and _digest(text[: mark.start()]) == mark[1]


def _digest(text: str) -> str:
    return hashlib.sha256(text.rstrip().encode()).hexdigest()
