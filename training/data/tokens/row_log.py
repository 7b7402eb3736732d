"""A log with one entry per row, in temporary files, for use once the selection of rows is known.

Clean rows (with examples, without warnings) are most of them. Only numbers are stored for these, so they can
be counted as arrays. Flagged rows (unusable or with a warning) are stored whole.
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
    """The result of encoding a row.

    Args:
        number: index among all rows, from 0.
        part: index of its file in the source.
        kind, reason, untrusted: why the row is unusable, as in `RowError`; None if it has examples.
        warnings: kinds of findings of a usable row.
        examples: number of its examples.
        tokens, trained: tokens of all its examples, and those of them that carry loss. For a row without
            trained tokens, `tokens` is the length of the whole row.
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
    untrusted: str = ""


class CleanRows(NamedTuple):
    """Rows with examples and without warnings, as columns: (rows,) each. `places` are line or row numbers."""

    numbers: NDArray[np.int64]
    parts: NDArray[np.int64]
    places: NDArray[np.int64]
    examples: NDArray[np.int64]
    tokens: NDArray[np.int64]
    trained: NDArray[np.int64]


class RowLog:
    """The entries of all rows, added in the order of the data. Use as a context."""

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
        """The clean rows, in blocks."""
        import numpy as np

        width = len(CleanRows._fields)
        self._clean.seek(0)
        while data := self._clean.read(NUMBERS_AT_ONCE * width * 8):
            yield CleanRows(*np.frombuffer(data, np.int64).reshape(-1, width).T)

    def selected(self, rows: CleanRows, chosen: NDArray[np.bool_]) -> Iterator[LoggedRow]:
        """The entries of some clean rows: those where `chosen`, (rows,), is True."""
        for number, part, place, *counts in zip(*(column[chosen].tolist() for column in rows), strict=True):
            file, unit = self._files[part]
            yield LoggedRow(number, part, Place(file, place, unit), None, "", (), *counts)

    def flagged(self) -> Iterator[LoggedRow]:
        """The entries of the rows that are unusable or have a warning."""
        self._flagged.seek(0)
        for line in self._flagged:
            number, part, place, *values = json.loads(line)
            yield LoggedRow(number, part, Place(*place), *values)
