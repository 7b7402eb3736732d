"""What became of each row, kept in temporary files until it is known which rows are used.

Of most rows there are only numbers to tell, so that all of them can be counted at once; of the others (they
cannot be used, or deserve a warning) there is more.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..readers.rows import Place, Unit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NUMBERS_AT_ONCE = 2**16


class LoggedRow(NamedTuple):
    """What became of a row.

    Args:
        number: its place among all rows, counted from 0.
        part: the index of its file in the source.
        kind, reason: why it cannot be used; None if it has examples.
        warnings: kinds of findings of a row that can be used.
        examples: how many were made of it.
        tokens, trained: of all its examples, and those that carry loss; of a row with nothing to learn, its
            whole length.
    """

    number: int
    part: int
    place: Place
    kind: str | None = None
    reason: str = ""
    warnings: tuple[str, ...] = ()
    examples: int = 0
    tokens: int = 0
    trained: int = 0


class CleanRows(NamedTuple):
    """Rows with examples and without warnings: (rows,) each."""

    numbers: NDArray[np.int64]
    parts: NDArray[np.int64]
    places: NDArray[np.int64]
    examples: NDArray[np.int64]
    tokens: NDArray[np.int64]
    trained: NDArray[np.int64]


class RowLog:
    """The outcomes of all rows, added in the data's order. Use as a context."""

    def __init__(self) -> None:
        self._clean = tempfile.TemporaryFile("w+b")  # noqa: SIM115 - closed by `__exit__`
        self._flagged = tempfile.TemporaryFile("w+", encoding="ascii")  # noqa: SIM115
        self._files: dict[int, tuple[str, Unit]] = {}

    def __enter__(self) -> RowLog:
        return self

    def __exit__(self, *error: object) -> None:
        self._clean.close()
        self._flagged.close()

    def add(self, rows: Sequence[LoggedRow]) -> None:
        import numpy as np

        numbers: list[tuple[int, ...]] = []
        for one in rows:
            if one.kind or one.warnings:
                self._flagged.write(json.dumps(one) + "\n")
            else:
                if one.part not in self._files:
                    self._files[one.part] = one.place.file, one.place.unit
                row = one.number, one.part, one.place.number, one.examples, one.tokens, one.trained
                numbers.append(row)
        self._clean.write(np.array(numbers, np.int64).tobytes())

    def clean(self) -> Iterator[CleanRows]:
        """The rows of which there are only numbers to tell, many at a time."""
        import numpy as np

        width = len(CleanRows._fields)
        self._clean.seek(0)
        while data := self._clean.read(NUMBERS_AT_ONCE * width * 8):
            yield CleanRows(*np.frombuffer(data, np.int64).reshape(-1, width).T)

    def selected(self, rows: CleanRows, chosen: NDArray[np.bool_]) -> Iterator[LoggedRow]:
        """Some of them, row by row."""
        for number, part, place, *counts in zip(*(column[chosen].tolist() for column in rows), strict=True):
            file, unit = self._files[part]
            yield LoggedRow(number, part, Place(file, place, unit), None, "", (), *counts)

    def flagged(self) -> Iterator[LoggedRow]:
        """The rows that cannot be used or that deserve a warning."""
        self._flagged.seek(0)
        for line in self._flagged:
            number, part, place, *values = json.loads(line)
            yield LoggedRow(number, part, Place(*place), *values)
