"""NF4 with double quantisation, in the format of bitsandbytes; plain torch, for any device.

Each block of 64 numbers is divided by its largest magnitude, and each of them becomes the nearest of 16
quantiles of a normal distribution; two share a byte. The magnitudes, less their mean, are quantised again, to
8 bits in blocks of 256 (Dettmers et al. 2023, arXiv:2305.14314). So a number takes 4.127 bits.

    weight[e] = NF4[nibble e] · absmax[e // 64]
    absmax[b] = DYNAMIC[absmax_codes[b]] · nested_absmax[b // 256] + offset

Rows of a matrix follow each other without a gap, and a block may reach from one row into the next.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK = 64
NESTED_BLOCK = 256
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023,
    1.0,
)  # fmt: skip
"""Appendix E of the paper."""

PIECE = 1 << 24
"""Numbers that are quantised at a time: what they need for a moment does not grow with the matrix."""


@dataclass(frozen=True)
class Nf4Shape:
    """What is stored of a matrix.

    Args:
        rows, columns: of the matrix, (N, K).
        block: numbers that share a magnitude.
        nested: whether the magnitudes are quantised too; else they are stored in fp32.
    """

    rows: int
    columns: int
    block: int = BLOCK
    nested: bool = True

    @property
    def numbers(self) -> int:
        return self.rows * self.columns

    @property
    def blocks(self) -> int:
        return -(-self.numbers // self.block)

    def parts(self) -> dict[str, tuple[torch.dtype, int]]:
        """Type and length of each stored tensor, under the names that bitsandbytes gives them."""
        packed = {"": (torch.uint8, -(-self.numbers // 2))}
        if not self.nested:
            return {**packed, "absmax": (torch.float32, self.blocks)}
        return {
            **packed,
            "absmax": (torch.uint8, self.blocks),
            "nested_absmax": (torch.float32, -(-self.blocks // NESTED_BLOCK)),
            "nested_offset": (torch.float32, 1),
        }


@dataclass(frozen=True)
class Nf4Weight:
    """A matrix in NF4, as views of wherever its bytes lie."""

    shape: Nf4Shape
    parts: dict[str, Tensor]

    def take(self, weight: Tensor) -> None:
        """Quantise `weight`, (N, K), into the parts."""
        numbers = weight.detach().reshape(-1)
        magnitudes = torch.empty(self.shape.blocks, device=weight.device)
        step = PIECE // self.shape.block * self.shape.block
        for start in range(0, self.shape.numbers, step):
            codes, largest = _nearest(numbers[start : start + step], self.shape.block, code_of(weight.device))
            self.parts[""][start // 2 :][: -(-len(codes) // 2)].copy_(_packed(codes))
            magnitudes[start // self.shape.block :][: len(largest)] = largest
        if not self.shape.nested:
            self.parts["absmax"].copy_(magnitudes)
            return
        offset = magnitudes.mean()
        codes, largest = _nearest(magnitudes - offset, NESTED_BLOCK, dynamic_code(weight.device))
        self.parts["absmax"].copy_(codes)
        self.parts["nested_absmax"].copy_(largest)
        self.parts["nested_offset"].copy_(offset)

    def dequantised(self) -> Tensor:
        """The matrix, (N, K), in fp32."""
        packed = self.parts[""]
        numbers = code_of(packed.device)[torch.stack([packed >> 4, packed & 15], 1).reshape(-1).long()]
        magnitudes = self._magnitudes().repeat_interleave(self.shape.block)[: self.shape.numbers]
        scaled = numbers[: self.shape.numbers] * magnitudes
        return scaled.view(self.shape.rows, self.shape.columns)

    def _magnitudes(self) -> Tensor:
        """absmax of each block, (blocks,)."""
        absmax = self.parts["absmax"]
        if not self.shape.nested:
            return absmax
        largest = self.parts["nested_absmax"].repeat_interleave(NESTED_BLOCK)[: self.shape.blocks]
        return dynamic_code(absmax.device)[absmax.long()] * largest + self.parts["nested_offset"]


def _nearest(numbers: Tensor, block: int, code: Tensor) -> tuple[Tensor, Tensor]:
    """The place in `code` nearest to each number over its block's magnitude, and these magnitudes."""
    blocks = F.pad(numbers.float(), (0, -len(numbers) % block)).view(-1, block)
    largest = blocks.abs().amax(1)
    scaled = (blocks * (1 / largest.clamp(min=1e-38))[:, None]).clamp_(-1, 1)
    borders = (code[:-1] + code[1:]) / 2
    return torch.bucketize(scaled, borders, out_int32=True).view(-1)[: len(numbers)].to(torch.uint8), largest


def _packed(codes: Tensor) -> Tensor:
    """Two codes of 4 bits in a byte, the first one in its upper half."""
    pairs = F.pad(codes, (0, len(codes) % 2)).view(-1, 2)
    return pairs[:, 0] << 4 | pairs[:, 1]


@cache
def code_of(device: torch.device) -> Tensor:
    """The 16 numbers of NF4."""
    return torch.tensor(NF4, device=device)


@cache
def dynamic_code(device: torch.device) -> Tensor:
    """256 numbers in [-1, 1], dense around 0 (Dettmers 2015, arXiv:1511.04561).

    Each power of ten has a sign, and twice as many steps as the one below; besides, there are 0 and 1.
    """
    found = [0.0, 1.0]
    for exponent in range(7):
        borders = torch.linspace(0.1, 1, 2**exponent + 1)
        middles = math.pow(10, exponent - 6) * ((borders[:-1] + borders[1:]) / 2)
        found += [sign * float(middle) for middle in middles for sign in (1, -1)]
    return torch.tensor(sorted(found), device=device)
