"""What a source yields: rows with the place they came from, and rows that could not be read."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

Unit = Literal["line", "row", "document"]


class Place(NamedTuple):
    """Where a row stands: a file (as the user knows it) and a number counted from 1."""

    file: str
    number: int
    unit: Unit = "line"

    def __str__(self) -> str:
        return (
            f"{self.file}:{self.number}" if self.unit == "line" else f"{self.file} {self.unit} {self.number}"
        )


class RawRow(NamedTuple):
    """A row as it was read, before its format is recognised."""

    place: Place
    value: dict[str, Any]


class BadRow(NamedTuple):
    """A row that could not be read; `kind` is one of `findings.KINDS`."""

    place: Place
    kind: str
    reason: str


class RowError(Exception):
    """What is wrong with one row; collected into findings, never shown to the user as it is.

    Args:
        kind: one of `findings.KINDS`.
        reason: what was wrong, in a few words.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(f"{kind}: {reason}")
        self.kind = kind
        self.reason = reason
