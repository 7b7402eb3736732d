"""A number for each word of many texts, computed for all of them at once.

Words are what white space separates; single characters where a script puts no spaces between words. Case does
not count. A word's hash is a polynomial in its bytes (Karp and Rabin, 1987) modulo 2^64: with the running
sums of all bytes times powers of a base, a word's is the difference of two of them, divided by the power of
the place where the word begins.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BASE = 0x9E3779B97F4A7C15
"""Odd, so that it can be divided by."""

PIECE = 2**15
"""Bytes that are hashed at once; a longer word counts as several."""

LETTERS_A_WORD = 20
"""A text with fewer spaces than one to so many characters is taken to be written without them."""

SPACE = re.compile(r"\s+")


def hashed_words(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The words' hashes, text after text, and where each text's begin and end: (words,) and (texts + 1,)."""
    import numpy as np

    data = [_separable(text).lower().encode("utf-8", "replace") for text in texts]
    found = [*map(_of_piece, _pieces(b" ".join(data)))]
    words, starts = (np.concatenate(parts) for parts in zip(*found, strict=True))
    ends = np.cumsum([0, *(len(one) + 1 for one in data)])
    return words, np.searchsorted(starts, ends)


def _separable(text: str) -> str:
    """The text with the words that are meant separated by ASCII white space."""
    if text.isascii():
        return text
    words = SPACE.sub(" ", text)
    return words if len(words) < LETTERS_A_WORD * (1 + words.count(" ")) else " ".join(words)


def _pieces(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Where each piece begins, and its bytes; cut between words if there is a space."""
    start = 0
    while True:
        end = len(data) if len(data) - start <= PIECE else 1 + data.rfind(b" ", start, start + PIECE)
        end = end if end > start else start + PIECE
        yield start, data[start:end]
        start = end
        if start >= len(data):
            return


def _of_piece(piece: tuple[int, bytes]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The hashes of its words, and where in the whole each begins: (words,) each."""
    import numpy as np

    first, data = piece
    powers, inverses = _powers()
    letters = np.frombuffer(data, np.uint8)
    inside = np.concatenate([[False], ~_is_space()[letters], [False]])
    starts, ends = np.flatnonzero(inside[1:] != inside[:-1]).reshape(-1, 2).T
    with np.errstate(over="ignore"):
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(letters * powers[: len(letters)])])
        return (sums[ends] - sums[starts]) * inverses[starts], first + starts


@cache
def _powers() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The powers of the base and of its inverse, for each place in a piece."""
    import numpy as np

    with np.errstate(over="ignore"):
        both = [np.cumprod(np.full(PIECE, base, np.uint64)) for base in (BASE, pow(BASE, -1, 2**64))]
    return both[0], both[1]


@cache
def _is_space() -> NDArray[np.bool_]:
    import numpy as np

    return np.array([chr(code).isspace() and code < 128 for code in range(256)])
