"""Scores of an answer beside the right one: exact match, token F1, contains.

Both texts are normalised as SQuAD's evaluation does (Rajpurkar et al. 2016, arXiv:1606.05250): lower case,
without punctuation and the English articles a, an and the, and with single spaces.
"""

from __future__ import annotations

import re
import string
from collections import Counter

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """The text as answers are compared; one that has nothing else, e.g. only "The", keeps it all."""
    lower = text.lower()
    kept = " ".join(ARTICLES.sub(" ", lower.translate(PUNCTUATION)).split())
    return kept or " ".join(lower.split())


def exact_match(answer: str, right: str) -> float:
    return float(normalised(answer) == normalised(right))


def contains(answer: str, right: str) -> float:
    """Whether the right answer stands in the answer, not within a longer word or number."""
    text, wanted = normalised(answer), normalised(right)
    at = text.find(wanted)
    while at >= 0:
        if not _within_word(text, at, at + len(wanted)):
            return 1.0
        at = text.find(wanted, at + 1)
    return 0.0


def _within_word(text: str, start: int, end: int) -> bool:
    return _joins(text, start) or _joins(text, end)


def _joins(text: str, at: int) -> bool:
    """Whether the characters around this place are of one word; scripts without case have no such limit."""
    return 0 < at < len(text) and all(
        one.isdigit() or one.upper() != one.lower() for one in (text[at - 1], text[at])
    )


def token_f1(answer: str, right: str) -> float:
    """2PR / (P + R) of the words that both have; P is their share of the answer, R of the right one."""
    given, wanted = normalised(answer).split(), normalised(right).split()
    shared = sum((Counter(given) & Counter(wanted)).values())
    return 2 * shared / (len(given) + len(wanted)) if shared else 0.0
