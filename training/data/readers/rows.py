"""The items of a source: rows with their place, and rows that cannot be read."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from ...redact import scrub
from ...untrusted import one_line, short_name

Unit = Literal["line", "row", "document"]
NUL_BYTES = "contains NUL bytes"
"""Reason of a bad row in each text format."""

MAX_UNTRUSTED = 200
"""Characters of what others say about a row, or of the row itself."""


class Place(NamedTuple):
    """The position of a row: a file, by the name that users know, and a number from 1."""

    file: str
    number: int
    unit: Unit = "line"

    def __str__(self) -> str:
        file = short_name(self.file)
        return f"{file}:{self.number}" if self.unit == "line" else f"{file} {self.unit} {self.number}"


class RawRow(NamedTuple):
    """A row as read, before its format is recognised."""

    place: Place
    value: dict[str, Any]


class BadRow(NamedTuple):
    """A row that cannot be read; `kind` is one of `findings.KINDS`, `untrusted` is text of the row."""

    place: Place
    kind: str
    reason: str
    untrusted: str = ""


class RowError(Exception):
    """A problem of one row. It becomes part of a finding; users do not see the exception itself.

    Args:
        kind: one of `findings.KINDS`.
        reason: what is wrong, in a few words of ours.
        untrusted: what the model's chat template says about it, or text of the row.
    """

    def __init__(self, kind: str, reason: str, untrusted: str = "") -> None:
        super().__init__(f"{kind}: {reason}")
        self.kind = kind
        self.reason = reason
        self.untrusted = one_line(scrub(untrusted), MAX_UNTRUSTED)
