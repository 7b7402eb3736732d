"""Rows of CSV, TSV and Parquet files, streamed."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from ...errors import DatasetFormatError, DatasetParseError
from ...untrusted import quoted, short_name
from .decoding import MAX_ROW_BYTES, OnRead, TextLine, read_lines, regular_file
from .json_rows import json_value
from .libraries import library
from .rows import NUL_BYTES, BadRow, Place, RawRow

NESTED_COLUMNS = ("messages", "conversations", "tools", "chosen", "rejected", "prompt", "completion")
"""CSV columns whose cells may contain JSON."""

PARQUET_BATCH = 256
"""Rows that are decoded together. Small, because a row may contain a whole document."""


def csv_rows(path: Path, name: str, on_read: OnRead) -> Iterator[RawRow | BadRow]:
    """The rows of a CSV or TSV file with a header line."""
    csv.field_size_limit(MAX_ROW_BYTES)
    lines = PhysicalLines(read_lines(path, on_read))
    reader = csv.reader(lines, delimiter=_delimiter(path), strict=True)
    header = _header(reader, name)
    while True:
        place = Place(name, lines.number + 1)
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield BadRow(place, "parse", str(error))
            continue
        if bad_line := lines.take_bad_line():
            yield BadRow(Place(name, bad_line.number), bad_line.kind or "parse", bad_line.reason)
        elif cells:
            yield _csv_row(header, cells, place)


class PhysicalLines:
    """Passes lines to the csv reader and keeps the last one that cannot be read."""

    def __init__(self, lines: Iterator[TextLine]) -> None:
        self._lines = lines
        self._bad_line: TextLine | None = None
        self.number = 0

    def __iter__(self) -> PhysicalLines:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.number = line.number
        if line.kind:
            self._bad_line = line
        elif "\0" in line.text:
            self._bad_line = TextLine(line.number, "", "parse", NUL_BYTES)
        return line.text + "\n"

    def take_bad_line(self) -> TextLine | None:
        bad_line, self._bad_line = self._bad_line, None
        return bad_line


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
    size = regular_file(path).st_size
    parquet, arrow = library("pyarrow.parquet", "Reading Parquet"), library("pyarrow", "Reading Parquet")
    number = 0
    try:
        with parquet.ParquetFile(path, memory_map=False, pre_buffer=False) as file:
            total = max(1, file.metadata.num_rows)
            for batch in file.iter_batches(PARQUET_BATCH):
                for value in cast("list[dict[str, Any]]", batch.to_pylist()):
                    number += 1
                    yield RawRow(Place(name, number, "row"), without_nulls(value))
                on_read(size * batch.num_rows // total)
    except (arrow.ArrowException, OSError) as error:
        raise DatasetParseError(
            f"{short_name(name)} is damaged or not a Parquet file, after row {number}: {error}."
        ) from None


def without_nulls(value: Any) -> Any:
    """`value` without null keys: in Parquet every struct has the keys of all of them."""
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value).items()
        return {key: without_nulls(item) for key, item in items if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in cast("list[Any]", value)]
    return value
