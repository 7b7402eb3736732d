"""How a weight's rows lie in GGUF, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..merged.merge import Floats


@dataclass(frozen=True)
class RowLayout:
    """How a weight's rows are laid down: heads of rows that are permuted, and what is added to them."""

    heads: int | None = None
    shift: float = 0.0

    def row_multiple(self, rows: int) -> int:
        """Only whole heads can be permuted: blocks have to be multiples of this many rows."""
        return rows // self.heads if self.heads else 1

    def apply(self, values: Floats, total_rows: int) -> Floats:
        """The rows as GGUF holds them.

        Args:
            values: (rows, …), a multiple of `row_multiple`.
            total_rows: rows of the whole weight.
        """
        if self.shift:
            return values + np.float32(self.shift)
        if not self.heads:
            return values
        head = total_rows // self.heads
        pairs = values.reshape(-1, 2, head // 2, *values.shape[1:])
        return pairs.swapaxes(1, 2).reshape(values.shape)

    def undo(self, values: Floats, total_rows: int) -> Floats:
        """The rows as Transformers holds them; arguments as in `apply`."""
        if self.shift:
            return values - np.float32(self.shift)
        if not self.heads:
            return values
        head = total_rows // self.heads
        pairs = values.reshape(-1, head // 2, 2, *values.shape[1:])
        return pairs.swapaxes(1, 2).reshape(values.shape)


PLAIN_LAYOUT = RowLayout()
