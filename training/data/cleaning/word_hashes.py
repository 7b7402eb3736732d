"""Hashes of all words of many texts, vectorised.

Words are separated by white space; in scripts without spaces between words, each character is a word. Case is
ignored. The hash is polynomial (Karp and Rabin, 1987), modulo 2^64: S[i] is the sum of byte[k] * BASE^k for
k < i, and the hash of the word from a to b is (S[b] - S[a]) * BASE^-a.
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
"""Odd, so that it has an inverse modulo 2^64."""

PIECE = 2**15
"""Bytes that are hashed together. A longer word counts as several words."""

CHARACTERS_PER_WORD = 20
"""A text with more characters per space is treated as a script without spaces between words."""

SPACE = re.compile(r"\s+")


def hashed_words(texts: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The hashes of the words of all texts, joined, and the edges of each text: (words,) and (texts + 1,)."""
    import numpy as np

    data = [_separable(text).lower().encode("utf-8", "replace") for text in texts]
    found = [*map(_of_piece, _pieces(b" ".join(data)))]
    words, starts = (np.concatenate(parts) for parts in zip(*found, strict=True))
    ends = np.cumsum([0, *(len(one) + 1 for one in data)])
    return words, np.searchsorted(starts, ends)


def _separable(text: str) -> str:
    """The text with its words separated by ASCII white space."""
    if text.isascii():
        return text
    words = SPACE.sub(" ", text)
    return words if len(words) < CHARACTERS_PER_WORD * (1 + words.count(" ")) else " ".join(words)


def _pieces(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The start and the bytes of each piece; split at a space if there is one."""
    start = 0
    while True:
        end = len(data) if len(data) - start <= PIECE else 1 + data.rfind(b" ", start, start + PIECE)
        end = end if end > start else start + PIECE
        yield start, data[start:end]
        start = end
        if start >= len(data):
            return


def _of_piece(piece: tuple[int, bytes]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The hashes of a piece's words, and the start of each in the whole: (words,) each."""
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
    """The powers of the base and of its inverse: (PIECE,) each."""
    import numpy as np

    with np.errstate(over="ignore"):
        both = [np.cumprod(np.full(PIECE, base, np.uint64)) for base in (BASE, pow(BASE, -1, 2**64))]
    return both[0], both[1]


@cache
def _is_space() -> NDArray[np.bool_]:
    import numpy as np

    return np.array([chr(code).isspace() and code < 128 for code in range(256)])
