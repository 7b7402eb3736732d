"""NF4 to the dtype of a GEMM on a GPU, by one Triton kernel; see `nf4` for the format."""

# pyright: basic, reportMissingImports=false
# Triton's language has no types, and Triton is there only where torch is built for GPUs.

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from .gpu_kernels import launch
from .nf4 import NESTED_BLOCK, Nf4Weight, code_of, dynamic_code

BYTES = 1024
"""Bytes that one program expands."""


@triton.jit
def _expand(
    packed, absmax, nested_absmax, offset, nf4, dynamic, out, columns, row_stride, numbers,
    BLOCK: tl.constexpr, NESTED: tl.constexpr, NESTED_BLOCK: tl.constexpr, BYTES: tl.constexpr,
):  # fmt: skip
    start = tl.program_id(0) * BYTES
    place = start + tl.arange(0, BYTES)
    inside = place * 2 < numbers
    pair = tl.load(packed + place, mask=inside, other=0).to(tl.int32)
    block = place // (BLOCK // 2)
    magnitude = tl.load(absmax + block, mask=inside, other=0)
    if NESTED:
        largest = tl.load(nested_absmax + block // NESTED_BLOCK, mask=inside, other=0.0)
        magnitude = tl.load(dynamic + magnitude.to(tl.int32)) * largest + tl.load(offset)
    first = tl.load(nf4 + (pair >> 4)) * magnitude
    second = tl.load(nf4 + (pair & 15)) * magnitude
    element = start * 2 + tl.arange(0, 2 * BYTES)
    row = element // columns
    target = out + row.to(tl.int64) * row_stride + (element - row * columns)
    tl.store(target, tl.interleave(first, second).to(out.dtype.element_ty), mask=element < numbers)


def dequantise(weight: Nf4Weight, out: Tensor) -> None:
    """Write the matrix to `out`, (N, K) on the weight's GPU, whose rows may lie apart."""
    parts, shape = weight.parts, weight.shape
    absmax, device = parts["absmax"], out.device
    # Without fused multiply-add: the magnitudes round as bitsandbytes rounds them.
    launch(
        _expand, (-(-parts[""].numel() // BYTES),), device,
        parts[""], absmax, parts.get("nested_absmax", absmax), parts.get("nested_offset", absmax),
        code_of(device), dynamic_code(device), out, shape.columns, out.stride(0), shape.numbers,
        BLOCK=shape.block, NESTED=shape.nested, NESTED_BLOCK=NESTED_BLOCK, BYTES=BYTES,
        enable_fp_fusion=False,
    )  # fmt: skip
