"""MXFP4, in which gpt-oss is published: 32 numbers of 4 bits share a power of two; plain torch, any device.

    weight[e] = FP4[nibble e] · 2^(scales[e // 32] - 127)

FP4 is a sign, two bits of exponent and one of mantissa; of two numbers in a byte the first one is in its
lower half (OCP Microscaling Formats 1.0). So a number takes 4.25 bits. It is expanded without any rounding.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

BLOCK = 32
FP4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
BLOCKS, SCALES = "_blocks", "_scales"
"""What a checkpoint adds to the name of a parameter that is stored so."""
PIECE = 1 << 24
"""Numbers that are expanded at a time: what they need for a moment does not grow with the matrix."""


@dataclass(frozen=True)
class Mxfp4Shape:
    """A matrix, (N, K), whose rows are whole blocks."""

    rows: int
    columns: int

    def parts(self) -> dict[str, tuple[torch.dtype, int]]:
        numbers = self.rows * self.columns
        return {BLOCKS: (torch.uint8, numbers // 2), SCALES: (torch.uint8, numbers // BLOCK)}


@dataclass(frozen=True)
class Mxfp4Weight:
    """A matrix in MXFP4, as views of wherever its bytes lie."""

    shape: Mxfp4Shape
    parts: dict[str, Tensor]

    def expand(self, out: Tensor) -> None:
        """Write the matrix to `out`, (N, K) without gaps, of any float type."""
        pairs, powers = _tables(out.device, out.dtype)
        flat = out.view(-1, BLOCK)  # a row is a block
        blocks = self.parts[BLOCKS].view(-1, BLOCK // 2)
        step = PIECE // BLOCK
        for start in range(0, len(flat), step):
            rows = slice(start, start + step)
            numbers = pairs[blocks[rows].int()].flatten(1)  # (blocks, 32)
            torch.mul(numbers, powers[self.parts[SCALES][rows].int()][:, None], out=flat[rows])


def stored_in_mxfp4(stored: Iterable[str]) -> frozenset[str]:
    """The parameters that a checkpoint holds so, of the names of its tensors."""
    return frozenset(name.removesuffix(BLOCKS) for name in stored if name.endswith(BLOCKS))


@cache
def _tables(device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Both numbers of each byte, (256, 2), and the power of two of each scale, (256,)."""
    one = torch.tensor([*FP4, *(-number for number in FP4)])
    byte = torch.arange(256)
    pairs = torch.stack([one[byte & 15], one[byte >> 4]], 1)
    powers = torch.ldexp(torch.ones(256), byte - 127)
    return pairs.to(device, dtype), powers.to(device, dtype)
