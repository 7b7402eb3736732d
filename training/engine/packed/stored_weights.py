"""The frozen weights of one layer's linears as they are stored: end to end in one buffer of bytes.

The buffer may lie on the device or in host memory; a layer is brought to the device by copying it once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .gpu_kernels import has_kernels
from .mxfp4 import Mxfp4Shape, Mxfp4Weight
from .nf4 import Nf4Shape, Nf4Weight

ALIGNMENT = 256
"""Bytes; each tensor begins at a multiple, as GPUs like it."""


@dataclass(frozen=True)
class WholeShape:
    """A matrix, (N, K), that is stored as it is."""

    rows: int
    columns: int
    dtype: torch.dtype

    def parts(self) -> dict[str, tuple[torch.dtype, int]]:
        return {"": (self.dtype, self.rows * self.columns)}


@dataclass(frozen=True)
class WholeWeight:
    """A matrix that is stored as it is."""

    matrix: Tensor  # (N, K)

    def take(self, weight: Tensor) -> None:
        self.matrix.copy_(weight)


WeightShape = Nf4Shape | Mxfp4Shape | WholeShape
StoredWeight = Nf4Weight | Mxfp4Weight | WholeWeight


def expand(weight: StoredWeight, out: Tensor) -> None:
    """Write a matrix to `out`, (N, K) in the dtype of the products, whose rows may lie apart."""
    if isinstance(weight, WholeWeight):
        out.copy_(weight.matrix)
    elif isinstance(weight, Mxfp4Weight):
        weight.expand(out)
    elif has_kernels(out):
        from .nf4_kernel import dequantise

        dequantise(weight, out)
    else:
        out.copy_(weight.dequantised())


@dataclass(frozen=True)
class LayerLayout:
    """Which weights a layer stores, by module (`self_attn.q_proj`), in their order in the buffer."""

    shapes: tuple[tuple[str, WeightShape], ...]

    @property
    def bytes(self) -> int:
        parts = [part for _, shape in self.shapes for part in shape.parts().values()]
        return sum(_aligned(kind, count) for kind, count in parts)

    def views(self, buffer: Tensor) -> dict[str, StoredWeight]:
        """The weights in a buffer of `bytes` bytes."""
        found: dict[str, StoredWeight] = {}
        start = 0
        for name, shape in self.shapes:
            parts: dict[str, Tensor] = {}
            for part, (kind, count) in shape.parts().items():
                parts[part] = buffer[start : start + count * kind.itemsize].view(kind)
                start += _aligned(kind, count)
            found[name] = _weight(shape, parts)
        return found


def _weight(shape: WeightShape, parts: dict[str, Tensor]) -> StoredWeight:
    if isinstance(shape, Nf4Shape):
        return Nf4Weight(shape, parts)
    if isinstance(shape, Mxfp4Shape):
        return Mxfp4Weight(shape, parts)
    return WholeWeight(parts[""].view(shape.rows, shape.columns))


def _aligned(kind: torch.dtype, count: int) -> int:
    return math.ceil(count * kind.itemsize / ALIGNMENT) * ALIGNMENT


def layer_and_module(name: str) -> tuple[int, str]:
    """The layer's number and the module's name in it, of `model.layers.3.self_attn.q_proj`."""
    layer, _, module = name.partition(".layers.")[2].partition(".")
    return int(layer), module
