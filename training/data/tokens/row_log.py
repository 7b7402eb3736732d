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


class Outcome(NamedTuple):
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


class Ordinary(NamedTuple):
    """Rows with examples and without warnings: (rows,) each."""

    numbers: NDArray[np.int64]
    parts: NDArray[np.int64]
    places: NDArray[np.int64]
    examples: NDArray[np.int64]
    tokens: NDArray[np.int64]
    trained: NDArray[np.int64]


class Outcomes:
    """The outcomes of all rows, added in the data's order. Use as a context."""

    def __init__(self) -> None:
        self._ordinary = tempfile.TemporaryFile("w+b")  # noqa: SIM115 - closed by `__exit__`
        self._others = tempfile.TemporaryFile("w+", encoding="ascii")  # noqa: SIM115
        self._files: dict[int, tuple[str, Unit]] = {}

    def __enter__(self) -> Outcomes:
        return self

    def __exit__(self, *error: object) -> None:
        self._ordinary.close()
        self._others.close()

    def add(self, outcomes: Sequence[Outcome]) -> None:
        import numpy as np

        numbers: list[tuple[int, ...]] = []
        for one in outcomes:
            if one.kind or one.warnings:
                self._others.write(json.dumps(one) + "\n")
            else:
                if one.part not in self._files:
                    self._files[one.part] = one.place.file, one.place.unit
                row = one.number, one.part, one.place.number, one.examples, one.tokens, one.trained
                numbers.append(row)
        self._ordinary.write(np.array(numbers, np.int64).tobytes())

    def ordinary(self) -> Iterator[Ordinary]:
        """The rows of which there are only numbers to tell, many at a time."""
        import numpy as np

        width = len(Ordinary._fields)
        self._ordinary.seek(0)
        while data := self._ordinary.read(NUMBERS_AT_ONCE * width * 8):
            yield Ordinary(*np.frombuffer(data, np.int64).reshape(-1, width).T)

    def of(self, rows: Ordinary, chosen: NDArray[np.bool_]) -> Iterator[Outcome]:
        """Some of them, row by row."""
        for number, part, place, *counts in zip(*(column[chosen].tolist() for column in rows), strict=True):
            file, unit = self._files[part]
            yield Outcome(number, part, Place(file, place, unit), None, "", (), *counts)

    def others(self) -> Iterator[Outcome]:
        """The rows that cannot be used or that deserve a warning."""
        self._others.seek(0)
        for line in self._others:
            number, part, place, *values = json.loads(line)
            yield Outcome(number, part, Place(*place), *values)
