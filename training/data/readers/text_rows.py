"""Rows of plain text files: one document, or several with a separator line between them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .decoding import MAX_ROW_BYTES, OnRead, read_lines
from .rows import NUL_BYTES, BadRow, Place, RawRow


def text_rows(
    path: Path, name: str, on_read: OnRead, separator: str | None, encoding: str | None = None
) -> Iterator[RawRow | BadRow]:
    """Each document as a `{"text": …}` row; its place is its first line.

    Args:
        separator: the line between two documents ("" is an empty line); None: one document.
    """
    document = Document(name)
    for line in read_lines(path, on_read, encoding):
        if line.kind:
            document.refuse(line.number, line.kind, line.reason, line.untrusted)
        elif separator is not None and line.text.strip() == separator.strip():
            yield from document.take()
        else:
            document.add(line.number, line.text)
    yield from document.take()


class Document:
    """Collects lines into one row."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._clear()

    def _clear(self) -> None:
        self._lines: list[str] = []
        self._size, self._first = 0, 0
        self._bad: BadRow | None = None

    def add(self, number: int, text: str) -> None:
        self._first = self._first or number
        self._size += len(text) + 1
        if "\0" in text:
            self.refuse(number, "parse", NUL_BYTES)
        elif self._size > MAX_ROW_BYTES:
            self.refuse(
                self._first,
                "too_long",
                f"a document longer than {MAX_ROW_BYTES // 2**20} MiB; set separator",
            )
        else:
            self._lines.append(text)

    def refuse(self, number: int, kind: str, reason: str, untrusted: str = "") -> None:
        """Makes the whole document a bad row; the first reason counts."""
        self._bad = self._bad or BadRow(Place(self._name, number), kind, reason, untrusted)
        self._lines.clear()

    def take(self) -> Iterator[RawRow | BadRow]:
        """The collected row, if there is one, and starts the next one."""
        text = "\n".join(self._lines).strip("\n")
        if self._bad:
            yield self._bad
        elif text.strip():
            yield RawRow(Place(self._name, self._first), {"text": text})
        self._clear()
