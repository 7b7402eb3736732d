"""Tokenises a long text in pieces, with the tokens of the whole text: memory grows with a piece only.

Pieces overlap. Tokens depend on their surroundings, but only on near ones: where two pieces have the same
tokens for some length before and after a character, one follows the other there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from .token_offsets import Tokenised

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PIECE, OVERLAP = 2**20, 2**13
"""Characters of a piece, and of what it shares with the next one."""
SAME = 64
"""Tokens before and after a seam that must be equal in both pieces."""
PLACES = 256
"""Characters in the middle of an overlap that are tried as seam."""

Tokenise = Callable[[str, Sequence[int]], Tokenised]
"""Tokenises a text, and finds the tokens at some of its characters."""


class Piece(NamedTuple):
    """The tokens of a part of the text.

    Args:
        start, end: its characters in the text.
        places: characters of the text whose tokens are known, with those tokens' numbers in the piece.
    """

    start: int
    end: int
    ids: NDArray[np.int32]
    places: dict[int, int]


def tokenise_long(tokenise: Tokenise, text: str, char_offsets: Sequence[int]) -> Tokenised | None:
    """The tokens of a text that is longer than `PIECE`; None if two of its pieces have no seam.

    Args:
        char_offsets: as for `ModelTokenizer.tokenise`.
    """
    import numpy as np

    ids: list[NDArray[np.int32]] = []
    found: dict[int, int] = {}
    before, start, first, total = _piece(tokenise, text, 0, char_offsets), 0, 0, 0
    while before.end < len(text):
        after = _piece(tokenise, text, before.end - OVERLAP, char_offsets)
        seam = _seam(before, after)
        if seam is None:
            return None
        found |= {at: total + before.places[at] - first for at in char_offsets if start <= at < seam}
        ids.append(before.ids[first : before.places[seam]])
        total += len(ids[-1])
        before, start, first = after, seam, after.places[seam]
    found |= {at: total + before.places[at] - first for at in char_offsets if start <= at}
    ids.append(before.ids[first:])
    return Tokenised(np.concatenate(ids), [found[offset] for offset in char_offsets])


def _piece(tokenise: Tokenise, text: str, start: int, char_offsets: Sequence[int]) -> Piece:
    end = min(start + PIECE, len(text))
    asked = {offset for offset in char_offsets if start <= offset <= end}
    asked.update(at for at in (*_seams(start + OVERLAP), *_seams(end)) if start <= at <= end)
    places = sorted(asked)
    found = tokenise(text[start:end], [offset - start for offset in places])
    return Piece(start, end, found.ids, dict(zip(places, found.token_offsets, strict=True)))


def _seams(end: int) -> range:
    """The characters that are tried as seam in the overlap that ends at `end`, and one more."""
    middle = end - OVERLAP // 2
    return range(middle - PLACES // 2, middle + PLACES // 2 + 1)


def _seam(before: Piece, after: Piece) -> int | None:
    """A character at which a token begins in both pieces, among equal tokens."""
    for place in _seams(before.end)[:-1]:
        one, other = before.places[place], after.places[place]
        begins = one < before.places[place + 1] and other < after.places[place + 1]
        if begins and _same_around(before.ids, one, after.ids, other):
            return place
    return None


def _same_around(ids: NDArray[np.int32], at: int, others: NDArray[np.int32], other: int) -> bool:
    if min(at, other) < SAME:
        return False
    around = ids[at - SAME : at + SAME]
    return len(around) == 2 * SAME and around.tolist() == others[other - SAME : other + SAME].tolist()
