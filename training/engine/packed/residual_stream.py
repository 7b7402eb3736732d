"""How attention and MLP read the residual stream and add to it, with the norms of the model's family.

    update = branch(before(hidden));  hidden = hidden + scale · after(update)

where either norm may be missing. The norm after a branch and the first one of the next are
fused with the sum.
"""

from __future__ import annotations

from torch import Tensor

from .decoder_config import DecoderConfig
from .norms import NORMS


class ResidualStream:
    """The norms and sums around a layer's branches; a norm's weight is None where it has none."""

    def __init__(self, config: DecoderConfig) -> None:
        self.norm = NORMS[config.family.norm]
        self.eps, self.scale = config.norm_eps, config.residual_scale

    def read(self, hidden: Tensor, before: Tensor | None) -> Tensor:
        """What a branch reads, (tokens, hidden_size)."""
        return hidden if before is None else self.norm.forward(hidden, before, self.eps)

    def read_backward(
        self, d_read: Tensor, hidden: Tensor, before: Tensor | None, d_residual: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The gradient of `hidden`, given that of what was read and of what passed by; and `read` again."""
        if before is None:
            return d_residual + d_read, hidden
        return self.norm.backward(d_read, hidden, before, d_residual, self.eps)

    def add(
        self, hidden: Tensor, update: Tensor, after: Tensor | None, before_next: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The stream with a branch's output, and what the next branch reads of it."""
        if after is not None and (before_next is None or self.scale != 1.0):
            update, after = self.norm.forward(update, after, self.eps), None
        if self.scale != 1.0:
            update = update * self.scale
        if before_next is None:
            total = hidden + update
            return total, total
        return self.norm.add(hidden, update, before_next, self.eps, after)

    def add_backward(self, d_total: Tensor, update: Tensor | None, after: Tensor | None) -> Tensor:
        """The gradient of a branch's output, given that of the stream; `update` is needed for a norm only."""
        if self.scale != 1.0:
            d_total = d_total * self.scale
        if after is None:
            return d_total
        assert update is not None
        return self.norm.gradient(d_total, update, after, None, self.eps)
