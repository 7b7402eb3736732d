"""Reads the rows of a source and recognises their formats. No row is dropped: a bad row has its reason."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from ...config.specs import DataGroup
from ...errors import InputError, TrainingAbortedError
from ...events import Phase, Report, ShouldStop, never_stop, no_report
from ...nearest_name import nearest
from ..readers.hub_rows import HubDataset
from ..readers.rows import BadRow, Place, RawRow, RowError
from ..readers.sources import Permit, Source, open_source, permit_all
from .messages import Recognised
from .recognise import FIELDS, recognise
from .validity import require_shallow, require_trainable

NO_ENCODING = "encoding is not used: the dataset has no text files."
NO_SEPARATOR = "separator is not used: the dataset has no .txt or .md files."
NOT_OF_THE_HUB = "{} is not used: the dataset is not of the Hub."
EVERY_ROWS = 512
EVERY_S = 1.0
"""Rows between two progress events, and between two calls of `should_stop`."""


class Read(NamedTuple):
    """One row of the source, as read.

    Args:
        number: index among all rows, from 0.
        part: index of its file in the source.
        row: the recognised row; None if it is unusable.
        kind, reason: why it is unusable.
        untrusted: text of the row that shows it.
        raw: a row with unknown keys, as it was read.
    """

    number: int
    part: int
    place: Place
    row: Recognised | None
    kind: str | None = None
    reason: str = ""
    untrusted: str = ""
    raw: Mapping[str, Any] | None = None

    def left_out(self, kind: str) -> Read:
        """The same row, marked as unusable for this reason."""
        return self._replace(row=None, kind=kind)


def open_data(data: DataGroup, permit: Permit = permit_all, should_stop: ShouldStop = never_stop) -> Source:
    """Opens the source that the settings name.

    Raises:
        InputError: no dataset is given, `columns` has an unknown field, or held-out rows are named twice.
        DatasetError: as for `open_source`.
    """
    if data.source is None:
        raise InputError("dataset is missing.", hint="Give the path of a file or a folder, or a Hub dataset.")
    for field in data.columns or {}:
        if field not in FIELDS:
            close = nearest(field, list(FIELDS))
            hint = f"Did you mean {close}?" if close else f"Known fields: {', '.join(FIELDS)}."
            raise InputError(f"columns has the unknown field {field!r}.", hint=hint)
    source = _opened(data, data.source, permit, should_stop)
    if data.validation is not None:
        source = source.with_validation(_opened(data, _validation(data), permit, should_stop))
    return replace(source, notes=(*source.notes, *_not_used(data, source)))


def _not_used(data: DataGroup, source: Source) -> Iterator[str]:
    """What is set, and means nothing for these files."""
    if data.encoding and not source.has_text_files:
        yield NO_ENCODING
    if data.separator is not None and not source.has_documents:
        yield NO_SEPARATOR
    of_the_hub = [part for part in source.parts if isinstance(part, HubDataset)]
    if data.split is not None and not of_the_hub:
        yield NOT_OF_THE_HUB.format("split")
    if data.dataset_revision is not None and not any(part.revision for part in of_the_hub):
        yield NOT_OF_THE_HUB.format("dataset_revision")


def _validation(data: DataGroup) -> str | list[str]:
    assert data.validation is not None
    if data.held_out not in ("auto", 0):
        raise InputError(
            f"held_out={data.held_out} and validation both say which rows are held out.",
            hint="Give one of them.",
        )
    return data.validation


def _opened(data: DataGroup, named: str | list[str], permit: Permit, should_stop: ShouldStop) -> Source:
    return open_source(
        named,
        split=data.split,
        revision=data.dataset_revision,
        separator=data.separator,
        encoding=data.encoding,
        permit=permit,
        should_stop=should_stop,
    )


class ReadProgress:
    """Reports the progress of reading a source, and stops the reading on request.

    Args:
        phase, message: of the events that are reported.
        total: bytes of the source; 0 if unknown.
    """

    def __init__(
        self,
        phase: str,
        message: str,
        total: int = 0,
        report: Report = no_report,
        should_stop: ShouldStop = never_stop,
    ) -> None:
        self._phase, self._message, self._total = phase, message, total
        self._report, self._should_stop = report, should_stop
        self._bytes = 0
        self._next = 0.0

    def on_read(self, count: int) -> None:
        self._bytes += count

    def rows_in_all(self, rows: int) -> int:
        """Estimated number of rows of the source, from the bytes of the first `rows` rows."""
        return rows if self._bytes == 0 else round(rows * max(1.0, self._total / self._bytes))

    def tick(self, number: int) -> None:
        """To be called for each row.

        Raises:
            TrainingAbortedError: `should_stop` returned True.
        """
        if number % EVERY_ROWS and time.monotonic() < self._next:
            return
        self._next = time.monotonic() + EVERY_S
        if self._should_stop():
            raise TrainingAbortedError(f"Stopped after {number:,} rows: {self._message}.")
        fraction = min(1.0, self._bytes / self._total) if self._total else None
        self._report(Phase(phase=self._phase, message=self._message, fraction=fraction))


def read_rows(source: Source, columns: Mapping[str, str] | None, progress: ReadProgress) -> Iterator[Read]:
    """Every row of the source, recognised or with the reason why it is unusable."""
    for number, part, item in raw_rows(source, progress):
        yield read_row(number, part, item, columns)


def raw_rows(source: Source, progress: ReadProgress) -> Iterator[tuple[int, int, RawRow | BadRow]]:
    """Every row of the source with its number and that of its file."""
    number = 0
    for part, file in enumerate(source.parts):
        for item in file.rows(progress.on_read):
            progress.tick(number)
            yield number, part, item
            number += 1


def read_row(number: int, part: int, item: RawRow | BadRow, columns: Mapping[str, str] | None) -> Read:
    """One row, recognised or with the reason why it is unusable."""
    if isinstance(item, BadRow):
        return Read(number, part, item.place, None, item.kind, item.reason, item.untrusted)
    try:
        require_shallow(item.value)
        row = recognise(item.value, columns)
        require_trainable(row)
    except RowError as error:
        raw = item.value if error.kind == "unrecognised" else None
        return Read(number, part, item.place, None, error.kind, error.reason, raw=raw)
    return Read(number, part, item.place, row)
