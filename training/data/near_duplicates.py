"""Rows that nearly repeat one another: MinHash over word triples, and locality-sensitive hashing on the disk.

MinHash (Broder, 1997) estimates the Jaccard similarity of two sets of word triples from 128 numbers each;
rows that share one of 16 bands of 8 numbers are compared (about half of the pairs of similarity 0.71 are, and
95 % of those of 0.8). Signatures lie in a temporary file, 520 bytes a row. Memory grows by about 40 MB for a
million rows: the keys of one band, their order, and the number and the cluster of each row.

System messages are left out, since rows that share a long one are not alike for that.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .libraries import library
from .messages import Recognised, texts_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PERMUTATIONS, BANDS = 128, 16
SIMILARITY = 0.8
BATCH = 512
LEAST_WORDS = 8
"""Shorter rows say too little to be called alike; only equal ones are duplicates."""

WORD = re.compile(r"\w+|[^\w\s]")


class NearDuplicates:
    """An index of rows by what they say, on the disk. Add all rows, then ask for the clusters."""

    def __init__(self, folder: Path | None = None) -> None:
        self._minhash = library("rensa", "Finding near duplicates").RMinHash
        self._folder = tempfile.TemporaryDirectory(prefix="near-duplicates-", dir=folder)
        self._signatures = (Path(self._folder.name) / "signatures").open("w+b")
        self._numbers = (Path(self._folder.name) / "numbers").open("w+b")
        self._texts: list[str] = []
        self._waiting: list[int] = []

    def __enter__(self) -> NearDuplicates:
        return self

    def __exit__(self, *error: object) -> None:
        self._signatures.close()
        self._numbers.close()
        self._folder.cleanup()

    def add(self, number: int, row: Recognised) -> None:
        """Adds a row; `number` is its place in the result of `clusters`."""
        self._texts.append(" ".join(text for role, text in texts_of(row) if role != "system").lower())
        self._waiting.append(number)
        if len(self._texts) == BATCH:
            self._flush()

    def _flush(self) -> None:
        import numpy as np

        hashed = self._minhash.hash_token_sets([_words(text) for text in self._texts])
        long = [index for index, words in enumerate(hashed) if len(words) >= LEAST_WORDS]
        if long:
            triples = [_triples(np.array(hashed[index], np.uint64)) for index in long]
            ends = np.cumsum([0, *(len(triple) for triple in triples)]).tolist()
            matrix = self._minhash.digest_matrix_from_flat_token_hashes(
                np.concatenate(triples), ends, num_perm=PERMUTATIONS, seed=1
            )
            np.array(matrix.to_rows(), np.uint32).tofile(self._signatures)
            np.array([self._waiting[index] for index in long], np.int64).tofile(self._numbers)
        self._texts.clear()
        self._waiting.clear()

    def clusters(self, rows: int) -> NDArray[np.int64]:
        """For each of `rows` rows the first row that it nearly repeats, which may be itself."""
        import numpy as np

        self._flush()
        first = np.arange(rows, dtype=np.int64)
        for file in (self._signatures, self._numbers):
            file.flush()
        if self._numbers.tell() == 0:
            return first
        numbers = np.fromfile(self._numbers.name, np.int64)
        signatures = np.memmap(self._signatures.name, np.uint32, "r", shape=(len(numbers), PERMUTATIONS))
        for band in range(BANDS):
            for members in _groups(_band_keys(signatures, band)):
                _join(first, numbers[members], signatures[members])
        return _roots(first)


def _words(text: str) -> list[str]:
    """Words; single characters where a script puts no spaces between words."""
    words = WORD.findall(text)
    return list(text) if len(text) > 20 * max(1, len(words)) else words


def _triples(words: Any) -> Any:
    """A hash of every three words in a row."""
    import numpy as np

    with np.errstate(over="ignore"):
        return words[:-2] * np.uint64(0x9E3779B1) + words[1:-1] * np.uint64(0x85EBCA77) + words[2:]


def _band_keys(signatures: Any, band: int) -> NDArray[np.uint64]:
    """One number for a band of each signature, read in blocks."""
    import numpy as np

    width = PERMUTATIONS // BANDS
    weights = np.random.RandomState(7).randint(1, 2**63, width).astype(np.uint64) | np.uint64(1)
    keys = np.empty(len(signatures), np.uint64)
    for start in range(0, len(signatures), 2**16):
        block = np.asarray(signatures[start : start + 2**16, band * width : (band + 1) * width], np.uint64)
        keys[start : start + len(block)] = (block * weights).sum(axis=1)
    return keys


def _groups(keys: NDArray[np.uint64]) -> list[NDArray[np.int64]]:
    """The places of equal keys, for each key that occurs more than once, in the rows' order."""
    import numpy as np

    order = np.argsort(keys, kind="stable")
    changes = np.flatnonzero(np.diff(keys[order])) + 1
    edges = np.concatenate([[0], changes, [len(keys)]])
    large = np.flatnonzero(np.diff(edges) > 1)
    return [order[edges[index] : edges[index + 1]] for index in large]


def _join(first: NDArray[np.int64], members: NDArray[np.int64], signatures: Any) -> None:
    """Puts those of a band's rows that are like its first row into that one's cluster."""
    alike = (signatures[1:] == signatures[0]).mean(axis=1) >= SIMILARITY
    root = _root(first, int(members[0]))
    for member in members[1:][alike].tolist():
        other = _root(first, member)
        first[max(root, other)] = min(root, other)
        root = min(root, other)


def _root(first: NDArray[np.int64], number: int) -> int:
    while first[number] != number:
        first[number] = first[first[number]]
        number = int(first[number])
    return number


def _roots(first: NDArray[np.int64]) -> NDArray[np.int64]:
    while (first[first] != first).any():
        first = first[first]
    return first
