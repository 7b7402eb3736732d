"""What findings show of rows that cannot be used: safe text of them, and the columns that they need."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..findings import Findings
from ..formats.reading import Read
from ..formats.unknown_columns import UnknownColumns
from ..readers.rows import MAX_UNTRUSTED
from .untrusted_text import safe_line

SHOWN_KEYS, SHOWN_KEY, SHOWN_VALUE = 6, 32, 60
SEARCHED = 2_000
"""Characters of a value that are searched for secrets before it is cut."""


class UnusableRows:
    """Adds unusable rows to findings. Of the rows with unknown keys, the first one is shown."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._unknown = UnknownColumns()

    def add(self, read: Read) -> None:
        """Adds a row that cannot be used."""
        untrusted = safe_line(read.untrusted, MAX_UNTRUSTED)
        if read.raw is not None:
            self._unknown.add(read.raw)
            if not self._findings.count("unrecognised"):
                untrusted = row_line(read.raw)
        self._findings.add(read.kind or "parse", read.place, read.reason, untrusted)

    def suggest(self) -> None:
        """Sets the repair of rows with unknown keys; to be called after the last row."""
        if repair := self._unknown.repair():
            self._findings.suggest("unrecognised", repair)


def row_line(row: Mapping[str, Any]) -> str:
    """A row as one line of JSON with its first keys, each value cut, without secrets."""
    shown = {safe_line(key, SHOWN_KEY): _value(value) for key, value in list(row.items())[:SHOWN_KEYS]}
    more = " …" if len(row) > SHOWN_KEYS else ""
    return safe_line(json.dumps(shown, ensure_ascii=False) + more, MAX_UNTRUSTED)


def _value(value: Any) -> Any:
    if isinstance(value, int | float | None):
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return safe_line(text[:SEARCHED], SHOWN_VALUE)
