"""A source's rows, read and recognised; nothing is dropped, each row has its outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from ...config.specs import DataGroup
from ...errors import InputError, TrainingAbortedError, nearest
from ..readers.rows import BadRow, Place, RawRow, RowError
from ..readers.sources import Source, open_source
from .messages import Recognised
from .recognise import FIELDS, recognise
from .validity import require_trainable

Report = Callable[[str, float | None], None]
"""Takes a message and the fraction done, if that is known."""

ShouldStop = Callable[[], bool]

EVERY_ROWS = 512
"""Rows between two looks at whether to report or to stop."""


class Read(NamedTuple):
    """One row of the source.

    Args:
        number: its place among all rows, counted from 0.
        part: the index of its file in the source.
        row: what it says, or None when it cannot be used.
        kind, reason: why it cannot be used.
    """

    number: int
    part: int
    place: Place
    row: Recognised | None
    kind: str | None = None
    reason: str = ""

    def left_out(self, kind: str) -> Read:
        """The same row, which shall not be used."""
        return self._replace(row=None, kind=kind)


def open_data(data: DataGroup, permit: Callable[[Path], object] = lambda path: None) -> Source:
    """The source that the settings name."""
    if data.source is None:
        raise InputError("dataset is missing.", hint="Give the path of a file, a folder or a Hub dataset.")
    for field in data.columns or {}:
        if field not in FIELDS:
            close = nearest(field, list(FIELDS))
            hint = f"Did you mean {close}?" if close else f"Known: {', '.join(FIELDS)}."
            raise InputError(f"columns maps to {field!r}, which is no field of a row.", hint=hint)
    return open_source(
        data.source, split=data.split, revision=data.dataset_revision, separator=data.separator, permit=permit
    )


class ReadProgress:
    """Tells how far the reading of a source has come, and stops it when asked to."""

    def __init__(self, message: str, total: int, report: Report, should_stop: ShouldStop) -> None:
        self._message, self._total = message, total
        self._report, self._should_stop = report, should_stop
        self._bytes = 0

    def on_read(self, count: int) -> None:
        self._bytes += count

    def rows_in_all(self, rows: int) -> int:
        """How many rows there will be, judged by the bytes that `rows` rows have taken."""
        return rows if self._bytes == 0 else round(rows * max(1.0, self._total / self._bytes))

    def tick(self, number: int) -> None:
        if number % EVERY_ROWS:
            return
        if self._should_stop():
            raise TrainingAbortedError(f"Stopped after {number:,} rows: {self._message}.")
        self._report(self._message, min(1.0, self._bytes / self._total) if self._total else None)


def read_rows(source: Source, columns: Mapping[str, str] | None, progress: ReadProgress) -> Iterator[Read]:
    """Every row of the source with its outcome."""
    number = 0
    for part, file in enumerate(source.parts):
        for item in file.rows(progress.on_read):
            progress.tick(number)
            yield _read(number, part, item, columns)
            number += 1


def _read(number: int, part: int, item: RawRow | BadRow, columns: Mapping[str, str] | None) -> Read:
    if isinstance(item, BadRow):
        return Read(number, part, item.place, None, item.kind, item.reason)
    try:
        row = recognise(item.value, columns)
        require_trainable(row)
    except RowError as error:
        return Read(number, part, item.place, None, error.kind, error.reason)
    return Read(number, part, item.place, row)
