"""Where a checkpoint's tensors of experts belong: one matrix of each expert, or all of them in one."""

from __future__ import annotations

from torch import Tensor

from ...models.expert_layers import DOWN
from .expert_linear import ExpertLinear


def expert_places(linear: ExpertLinear, whole: Tensor) -> dict[str, Tensor]:
    """The parts of a weight by the names that a checkpoint gives them.

    Args:
        whole: (experts, N, K), of `linear`.
    """
    if linear.sizes.stored is None:
        return {linear.name: whole.transpose(1, 2) if linear.sizes.transposed else whole}
    block, gate, up, down = linear.sizes.stored
    layer, of_down = linear.name.partition(".mlp.")[0], linear.name.endswith(DOWN)
    found: dict[str, Tensor] = {}
    for number, matrix in enumerate(whole.unbind(0)):
        prefix = f"{layer}.{block}.experts.{number}"
        if of_down:
            found[f"{prefix}.{down}.weight"] = matrix
        else:
            gate_rows, up_rows = matrix.chunk(2, 0)
            found |= {f"{prefix}.{gate}.weight": gate_rows, f"{prefix}.{up}.weight": up_rows}
    return found
