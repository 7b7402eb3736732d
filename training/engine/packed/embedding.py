"""Rows of the embedding, from wherever its matrix lies.

From host memory only the rows of a batch go to the GPU: some megabytes a step instead of gigabytes that stay.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .gpu_kernels import has_kernels


def embedded(matrix: Tensor, input_ids: Tensor) -> Tensor:
    """The row of each token, (tokens, hidden_size), on its device; `matrix` is (vocab_size, hidden_size)."""
    if matrix.device == input_ids.device:
        return matrix[input_ids]
    if not has_kernels(input_ids):
        return matrix[input_ids.to(matrix.device)].to(input_ids.device)
    from .gather_kernel import gather_rows

    return gather_rows(matrix, input_ids)


class EmbeddingModule(nn.Embedding):
    """The embedding as a module of a transformers model on `device`; `weight` only tells its shape.

    Args:
        scale: what each row is multiplied by.
    """

    def __init__(
        self, matrix: Tensor, padding_idx: int | None, device: torch.device, scale: Tensor | None = None
    ) -> None:
        placeholder: Any = torch.zeros((), dtype=matrix.dtype, device=device).expand(matrix.shape)
        super().__init__(*matrix.shape, padding_idx=padding_idx, _weight=placeholder)  # pyright: ignore[reportUnknownMemberType]
        self.weight.requires_grad_(False)
        self._matrix = matrix
        self._scale = None if scale is None else scale.to(device)

    def forward(self, input: Tensor) -> Tensor:
        rows = embedded(self._matrix, input.reshape(-1)).view(*input.shape, -1)
        return rows if self._scale is None else rows * self._scale
