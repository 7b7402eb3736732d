"""Statistics of row lengths in tokens, over all rows or a sample."""

from __future__ import annotations

from array import array
from typing import Any


class TokenLengths:
    """Collects lengths. Memory: 4 bytes per measured row."""

    def __init__(self) -> None:
        self._lengths = array("I")
        self._tokens = self._trained = self._kept = 0

    def add(self, length: int, kept: int, trained: int) -> None:
        """Adds a row: its tokens, its tokens within max_seq_length, and its tokens that carry loss."""
        self._lengths.append(length)
        self._tokens += length
        self._kept += min(kept, length)  # windows of a text share tokens
        self._trained += trained

    def __len__(self) -> int:
        return len(self._lengths)

    def over(self, limit: int) -> int:
        """Number of rows longer than `limit` tokens."""
        return sum(1 for length in self._lengths if length > limit)

    def quantile(self, share: float) -> int:
        """The smallest length that `share` (0 to 1) of the rows do not exceed."""
        ordered = sorted(self._lengths)
        return ordered[max(0, -int(-share * len(ordered) // 1) - 1)] if ordered else 0

    def sufficient_length(self) -> int:
        """The max_seq_length to suggest: the smallest power of two that 99 % of the rows do not exceed."""
        return 1 << max(5, (self.quantile(0.99) - 1).bit_length())

    def as_dict(self, rows: int, max_seq_length: int) -> dict[str, Any]:
        """Statistics for `rows` rows; extrapolated if fewer rows were measured."""
        measured = len(self._lengths)
        scale = rows / measured if measured else 0.0
        result: dict[str, Any] = {
            "median": self.quantile(0.5),
            "p90": self.quantile(0.9),
            "p99": self.quantile(0.99),
            "max": max(self._lengths, default=0),
            "total": round(self._tokens * scale),
            "trained_share": round(self._trained / self._kept, 4) if self._kept else 0.0,
            "max_seq_length": max_seq_length,
            "rows_cut": round(self.over(max_seq_length) * scale),
            "share_of_tokens_cut": round(1 - self._kept / self._tokens, 4) if self._tokens else 0.0,
        }
        if measured < rows:
            result["estimated_from_rows"] = measured
        return result
