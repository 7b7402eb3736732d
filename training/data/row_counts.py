"""Numbers of rows in words."""

from __future__ import annotations


def rows_of(count: int) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{count:,} {'row' if count == 1 else 'rows'}"
