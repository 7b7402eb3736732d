"""How llama.cpp wants the value heads of a gated delta net (Yang et al. 2024), as Qwen 3.5 has them.

Transformers groups value heads by the key head that they share; llama.cpp repeats the key heads as a whole,
so that value heads of one key head are as many apart as there are key heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...models.known_config import Config

if TYPE_CHECKING:
    from ..merged.merge import Floats

PREFIX = "linear_attn."


@dataclass(frozen=True)
class HeadOrder:
    """Rows or columns of a weight whose last `heads` · `size` ones are those of value heads.

    Args:
        heads: value heads.
        groups: key heads.
        size: rows or columns of a value head.
        columns: whether columns are meant.
        decay: whether the values are logarithms of decays, of which llama.cpp wants the decays, negated.
    """

    heads: int
    groups: int
    size: int
    columns: bool = False
    decay: bool = False

    def row_multiple(self, rows: int) -> int:
        """Rows of the whole weight change places."""
        return 1 if self.columns else rows

    def apply(self, values: Floats, total_rows: int) -> Floats:
        """The weight as GGUF holds it."""
        if self.decay:
            values = -np.exp(values.astype(np.float64)).astype(np.float32)
        return self._placed(values, self._order)

    def undo(self, values: Floats, total_rows: int) -> Floats:
        """The weight as Transformers holds it."""
        values = self._placed(values, np.argsort(self._order))
        return np.log(-values) if self.decay else values

    def _placed(self, values: Floats, order: NDArray[np.intp]) -> Floats:
        axis = 1 if self.columns else 0
        kept, heads = np.split(values, [values.shape[axis] - len(order)], axis)
        return np.concatenate([kept, np.take(heads, order, axis)], axis)

    @cached_property
    def _order(self) -> NDArray[np.intp]:
        places = np.arange(self.heads * self.size).reshape(self.groups, -1, self.size)
        return places.swapaxes(0, 1).reshape(-1)


def head_order(name: str, config: Config) -> HeadOrder | None:
    """How a weight of a gated delta net is laid down; None of other weights.

    Args:
        name: in Transformers.
    """
    _, found, part = name.rpartition(PREFIX)
    heads, groups = config["linear_num_value_heads"], config["linear_num_key_heads"]
    size = config["linear_value_head_dim"]
    orders = {
        "in_proj_qkv.weight": HeadOrder(heads, groups, size),
        "in_proj_z.weight": HeadOrder(heads, groups, size),
        "conv1d.weight": HeadOrder(heads, groups, size),
        "out_proj.weight": HeadOrder(heads, groups, size, columns=True),
        "in_proj_a.weight": HeadOrder(heads, groups, 1),
        "in_proj_b.weight": HeadOrder(heads, groups, 1),
        "dt_bias": HeadOrder(heads, groups, 1),
        "A_log": HeadOrder(heads, groups, 1, decay=True),
    }
    return orders.get(part) if found else None
