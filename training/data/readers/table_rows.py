"""Rows of CSV, TSV and Parquet files, streamed."""

from __future__ import annotations

import csv
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from ...errors import DatasetFormatError, DatasetParseError
from ...untrusted import quoted, short_name
from .decoding import (
    BOMB_BYTES,
    BOMB_RATIO,
    MAX_ROW_BYTES,
    OnRead,
    TextLine,
    opened,
    read_lines,
    too_expanded,
)
from .json_rows import json_value
from .libraries import library
from .rows import NUL_BYTES, BadRow, Place, RawRow

NESTED_COLUMNS = ("messages", "conversations", "tools", "chosen", "rejected", "prompt", "completion")
"""CSV columns whose cells may contain JSON."""

MAX_RECORD_LINES = 100_000
"""Limit of a CSV row, in physical lines."""

MAX_READ_AGAIN_BYTES = 4 * MAX_ROW_BYTES
"""Limit of what is read again after open quotes, per file: otherwise many of them cost a quadratic time."""

MAX_UNREADABLE = 1_000_000
"""A file with so many more unreadable rows than others is no table."""

PARQUET_BATCH = 256
"""Rows that are decoded together. Small, because a row may contain a whole document."""


def csv_rows(path: Path, name: str, on_read: OnRead) -> Iterator[RawRow | BadRow]:
    """The rows of a CSV or TSV file with a header line. A quote that is never closed costs one row.

    Raises:
        DatasetParseError: the header is not valid, or the file's quotes or rows are not those of a table.
    """
    csv.field_size_limit(MAX_ROW_BYTES)
    delimiter = _delimiter(path)
    lines = PhysicalLines(read_lines(path, on_read), name)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header = _header(reader, name)
    unreadable = good = 0
    while True:
        place = Place(name, lines.begin_record())
        try:
            cells = next(reader)
        except StopIteration:
            return
        except (csv.Error, OpenQuoteError) as error:
            row = BadRow(place, "parse", lines.repair(str(error), delimiter, len(header)))
        else:
            if bad_line := lines.bad_line:
                row = BadRow(Place(name, bad_line.number), bad_line.kind or "parse", bad_line.reason)
            elif not cells:
                continue
            else:
                row = _csv_row(header, cells, place)
        yield row
        unreadable, good = unreadable + isinstance(row, BadRow), good + isinstance(row, RawRow)
        if isinstance(row, BadRow) and unreadable > MAX_UNREADABLE + good:
            rows = f"{unreadable:,} of its first {unreadable + good:,} rows"
            raise DatasetParseError(
                f"{short_name(name)} is not a table: {rows} cannot be read, the last at {place}: "
                f"{row.reason}.",
                hint="Save it again as CSV, with text in double quotes and quotes in it doubled.",
            )


class OpenQuoteError(Exception):
    """A record is longer than any row: probably a quote is never closed."""


class PhysicalLines:
    """Passes lines to the csv reader; keeps those of the current record, to read them again if it fails."""

    def __init__(self, lines: Iterator[TextLine], name: str) -> None:
        self._lines, self._name = lines, name
        self._again: deque[TextLine] = deque()
        self._record: list[TextLine] = []
        self._size = self._read_again = 0
        self._number = 0
        self.bad_line: TextLine | None = None

    def __iter__(self) -> PhysicalLines:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        self._record.append(line)
        self._number, self._size = line.number, self._size + len(line.text) + 1
        if len(self._record) > MAX_RECORD_LINES or self._size > MAX_ROW_BYTES:
            raise OpenQuoteError(
                f"longer than {MAX_RECORD_LINES:,} lines or {MAX_ROW_BYTES // 2**20} MiB: "
                "a quote is probably not closed"
            )
        if line.kind:
            self.bad_line = line
        elif "\0" in line.text:
            self.bad_line = TextLine(line.number, "", "parse", NUL_BYTES)
        return line.text + "\n"

    def begin_record(self) -> int:
        """Forgets the last record; returns the number of the line at which the next one begins."""
        self._record, self._size, self.bad_line = [], 0, None
        return self._again[0].number if self._again else self._number + 1

    def repair(self, reason: str, delimiter: str, width: int) -> str:
        """Gives back the lines after an open quote, so that it costs one row; returns what is wrong.

        A record may fail for another reason than an open quote. Then its lines are not rows of their own, and
        the whole record is one bad row.
        """
        first, *rest = self._record
        failed_inside = bool(rest) and "unexpected end" not in reason and "not closed" not in reason
        if not rest or (failed_inside and not all(_is_row(line, delimiter, width) for line in rest[:-1])):
            return f"{reason} (lines {first.number:,} to {rest[-1].number:,})" if rest else reason
        self._read_again += self._size
        if self._read_again > MAX_READ_AGAIN_BYTES:
            raise DatasetParseError(
                f"{short_name(self._name)} has too many quotes that are not closed, "
                f"the last at line {first.number:,}.",
                hint="Save it again as CSV, with text in double quotes and quotes in it doubled.",
            )
        self._again.extendleft(reversed(rest))
        self._number = first.number
        return "a quote is not closed"


def _is_row(line: TextLine, delimiter: str, width: int) -> bool:
    """Whether a physical line is a row of the table by itself."""
    try:
        rows = list(csv.reader([line.text], delimiter=delimiter, strict=True))
    except csv.Error:
        return False
    return [len(cells) for cells in rows] == [width]


def _delimiter(path: Path) -> str:
    if ".tsv" in path.suffixes:
        return "\t"
    first = next(read_lines(path), TextLine(1, ""))
    return max(",;\t", key=first.text.count)


def _header(reader: Iterator[list[str]], name: str) -> list[str]:
    try:
        header = [cell.strip() for cell in next(reader, ())]
    except csv.Error as error:
        raise DatasetParseError(f"{short_name(name)}:1 is not a valid CSV header: {error}.") from None
    if len(set(header)) < len(header) or "" in header:
        raise DatasetFormatError(
            f"{short_name(name)}:1 is not a valid header: a name is repeated or empty "
            f"({', '.join(map(quoted, header[:5]))}).",
            hint="Add a first line with one unique name for each column.",
        )
    return header


def _csv_row(header: list[str], cells: list[str], place: Place) -> RawRow | BadRow:
    if len(cells) != len(header):
        return BadRow(place, "parse", f"{len(cells)} cells, but the header has {len(header)} columns")
    value: dict[str, Any] = dict(zip(header, cells, strict=True))
    for column in NESTED_COLUMNS:
        text = value.get(column)
        if isinstance(text, str) and text.lstrip()[:2] in ("[{", "[]"):
            try:
                value[column] = json_value(text)
            except ValueError as error:
                return BadRow(place, "parse", f"column {quoted(column)} is not JSON: {error}")
    return RawRow(place, value)


def parquet_rows(path: Path, name: str, on_read: OnRead) -> Iterator[RawRow | BadRow]:
    """The rows of a Parquet file, batch by batch."""
    with open(opened(path), "rb") as file:
        yield from _parquet_of(file, name, on_read)


def _parquet_of(stream: BinaryIO, name: str, on_read: OnRead) -> Iterator[RawRow | BadRow]:
    size = os.fstat(stream.fileno()).st_size
    parquet, arrow = library("pyarrow.parquet", "Reading Parquet"), library("pyarrow", "Reading Parquet")
    number = 0
    try:
        # Dictionaries are kept as they are: a text that stands once in the file could fill the memory.
        columns = _text_columns(parquet, arrow, stream)
        stream.seek(0)
        expanded, limit = 0, max(BOMB_BYTES, BOMB_RATIO * size)
        with parquet.ParquetFile(stream, pre_buffer=False, read_dictionary=columns) as file:
            total = max(1, file.metadata.num_rows)
            for batch in file.iter_batches(PARQUET_BATCH):
                sizes = _row_sizes(batch)
                expanded += sum(sizes) + _plain_bytes(batch)
                if expanded > limit:
                    raise too_expanded(short_name(name), limit)
                for row in _parquet_rows(batch, sizes, Place(name, number, "row")):
                    number += 1
                    yield row
                on_read(size * batch.num_rows // total)
    except (arrow.ArrowException, OSError) as error:
        raise DatasetParseError(
            f"{short_name(name)} is damaged or not a Parquet file, after row {number}.", untrusted=str(error)
        ) from None


def _text_columns(parquet: Any, arrow: Any, file: BinaryIO) -> list[str]:
    schema = parquet.read_schema(file)
    texts = (arrow.string(), arrow.large_string(), arrow.binary())
    return [field.name for field in schema if field.type in texts]


def _parquet_rows(batch: Any, sizes: list[int], before: Place) -> Iterator[RawRow | BadRow]:
    """The rows of a batch; one by one if they are large or not all of them can be read."""
    if sum(sizes) <= MAX_ROW_BYTES:
        try:
            values = cast("list[dict[str, Any]]", batch.to_pylist())
        except UnicodeDecodeError:
            pass
        else:
            for number, value in enumerate(values, start=before.number + 1):
                yield RawRow(before._replace(number=number), without_nulls(value))
            return
    for index, size in enumerate(sizes):
        place = before._replace(number=before.number + index + 1)
        if size > MAX_ROW_BYTES:
            yield BadRow(place, "too_long", f"longer than {MAX_ROW_BYTES // 2**20} MiB")
            continue
        try:
            (value,) = cast("list[dict[str, Any]]", batch.slice(index, 1).to_pylist())
        except UnicodeDecodeError:
            yield BadRow(place, "encoding", "a text is not UTF-8")
        else:
            yield RawRow(place, without_nulls(value))


def _row_sizes(batch: Any) -> list[int]:
    """The bytes of each row's texts that are kept in dictionaries."""
    sizes = [0] * batch.num_rows
    for column in batch.columns:
        if hasattr(column, "dictionary"):
            lengths = [len(text.as_buffer() or b"") for text in column.dictionary]
            for row, index in enumerate(column.indices.to_pylist()):
                sizes[row] += lengths[index] if index is not None else 0
    return sizes


def _plain_bytes(batch: Any) -> int:
    """The bytes of the columns that are not kept in dictionaries."""
    return sum(column.nbytes for column in batch.columns if not hasattr(column, "dictionary"))


def without_nulls(value: Any) -> Any:
    """`value` without null keys: in Parquet every struct has the keys of all of them."""
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value).items()
        return {key: without_nulls(item) for key, item in items if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in cast("list[Any]", value)]
    return value
