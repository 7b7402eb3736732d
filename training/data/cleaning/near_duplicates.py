"""Near duplicates: MinHash over word triples, and locality-sensitive hashing (LSH) on disk.

MinHash (Broder, 1997) estimates the Jaccard similarity of two sets of word triples from 128 numbers each.
Rows that share one of 16 bands of 8 numbers are compared: 1 - (1 - s^8)^16 of the pairs with similarity s,
which is 50 % for 0.67 and 95 % for 0.8. Signatures and bands are in temporary files, 650 bytes per row.
Memory: about 40 MB per million rows, for the keys of one band, their order, and the number and the cluster of
each row.

System messages are excluded: a long shared one does not make rows similar.
"""

from __future__ import annotations

import tempfile
from itertools import chain
from typing import TYPE_CHECKING, Any

from ..formats.messages import Recognised, texts_of
from ..readers.libraries import library
from .word_hashes import hashed_words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PERMUTATIONS, BANDS = 128, 16
SIMILARITY = 0.8
BATCH, BATCH_CHARACTERS = 512, 2**19
"""Limits of rows and characters that are hashed together."""

MIN_WORDS = 8
"""Rows with fewer words are never near duplicates: they have too few word triples to compare."""


class NearDuplicates:
    """An LSH index of rows on disk. Add all rows, then call `clusters`."""

    def __init__(self) -> None:
        self._minhash = library("rensa", "Finding near duplicates").RMinHash
        names = ["numbers", "signatures", *(f"band-{band}" for band in range(BANDS))]
        # Nameless files: a killed process leaves none.
        self._files = {name: tempfile.TemporaryFile("w+b") for name in names}  # noqa: SIM115
        self._texts: list[str] = []
        self._waiting: list[int] = []
        self._characters = 0

    def __enter__(self) -> NearDuplicates:
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._files.values():
            file.close()

    def add(self, number: int, row: Recognised) -> None:
        """Adds a row; `number` is its index in the result of `clusters`."""
        text = " ".join([text for role, text in texts_of(row) if role != "system"])
        self._texts.append(text)
        self._waiting.append(number)
        self._characters += len(text)
        if len(self._texts) == BATCH or self._characters > BATCH_CHARACTERS:
            self._flush()

    def _flush(self) -> None:
        import numpy as np

        words, edges = hashed_words(self._texts)
        long = np.flatnonzero(np.diff(edges) >= MIN_WORDS)
        if len(long):
            matrix = self._minhash.digest_matrix_from_flat_token_hashes(
                *_triples(words, edges[:-1][long], edges[1:][long]), num_perm=PERMUTATIONS, seed=1
            )
            flat = chain.from_iterable(matrix.to_rows())
            signatures = np.fromiter(flat, np.uint32, len(long) * PERMUTATIONS).reshape(-1, PERMUTATIONS)
            self._files["signatures"].write(signatures.tobytes())
            for band, keys in enumerate(_band_keys(signatures)):
                self._files[f"band-{band}"].write(keys.tobytes())
            self._files["numbers"].write(np.array(self._waiting, np.int32)[long].tobytes())
        self._texts.clear()
        self._waiting.clear()
        self._characters = 0

    def clusters(self, rows: int) -> NDArray[np.int32]:
        """For each of `rows` rows the first row of its cluster of near duplicates, maybe itself: (rows,)."""
        import numpy as np

        self._flush()
        first = np.arange(rows, dtype=np.int32)
        numbers = self._read("numbers", np.dtype(np.int32))
        for band in range(BANDS):
            for members in _groups(self._read(f"band-{band}", np.dtype(np.uint64))):
                self._join(first, numbers, members)
        return _roots(first)

    def _join(self, first: NDArray[np.int32], numbers: NDArray[np.int32], members: NDArray[np.int64]) -> None:
        """Union-find: of rows with equal band keys, merges those similar to the first into its cluster."""
        root = _root(first, int(numbers[members[0]]))
        # Rows that another band has merged already are not compared again.
        unmerged = [member for member in members[1:].tolist() if _root(first, int(numbers[member])) != root]
        leader = self._signatures(members[:1].tolist())
        for start in range(0, len(unmerged), BATCH):
            block = unmerged[start : start + BATCH]
            alike = (self._signatures(block) == leader).mean(axis=1) >= SIMILARITY
            for member, same in zip(block, alike.tolist(), strict=True):
                if same:
                    other = _root(first, int(numbers[member]))
                    first[max(root, other)] = root = min(root, other)

    def _read(self, name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
        import numpy as np

        self._files[name].seek(0)
        return np.fromfile(self._files[name], dtype)

    def _signatures(self, members: list[int]) -> NDArray[np.uint32]:
        """The signatures of some rows, read from disk: (members, permutations)."""
        import numpy as np

        file = self._files["signatures"]
        result = np.empty((len(members), PERMUTATIONS), np.uint32)
        for index, member in enumerate(members):
            file.seek(member * PERMUTATIONS * 4)
            result[index] = np.frombuffer(file.read(PERMUTATIONS * 4), np.uint32)
        return result


def _triples(
    words: NDArray[np.uint64], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], list[int]]:
    """The hashes of all triples of consecutive words, and the edges of each row: (triples,) and (rows + 1,).

    Args:
        words: (words,) word hashes of all rows, joined.
        starts, ends: (rows,) the first word of each row, and the one after its last; ascending.
    """
    import numpy as np

    with np.errstate(over="ignore"):
        triples = words[:-2] * np.uint64(0x9E3779B1) + words[1:-1] * np.uint64(0x85EBCA77) + words[2:]
    change = np.zeros(len(words), np.int8)
    change[starts], change[ends - 2] = 1, -1  # first triple of each row, and the one after its last
    within = np.cumsum(change[: len(triples)], dtype=np.int8).view(bool)
    return triples[within], [0, *np.cumsum(ends - starts - 2).tolist()]


def _band_keys(signatures: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """A hash of each band of each signature: (bands, rows)."""
    import numpy as np

    width = PERMUTATIONS // BANDS
    weights = np.random.RandomState(7).randint(1, 2**63, width).astype(np.uint64) | np.uint64(1)
    with np.errstate(over="ignore"):
        keys = signatures.astype(np.uint64).reshape(-1, BANDS, width) @ weights
    return np.ascontiguousarray(keys.T)


def _groups(keys: NDArray[np.uint64]) -> list[NDArray[np.int64]]:
    """For each key that occurs more than once, the indices of its rows in ascending order."""
    import numpy as np

    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    repeats = np.concatenate([[False], keys[1:] == keys[:-1], [False]])
    runs = np.flatnonzero(repeats[1:] != repeats[:-1]).reshape(-1, 2)
    return [order[start : end + 1] for start, end in runs.tolist()]


def _root(first: NDArray[np.int32], number: int) -> int:
    """The first row of a row's cluster; halves the path on the way."""
    while first[number] != number:
        first[number] = first[first[number]]
        number = int(first[number])
    return number


def _roots(first: NDArray[np.int32]) -> NDArray[np.int32]:
    """The first row of the cluster of every row."""
    while (first[first] != first).any():
        first = first[first]
    return first
