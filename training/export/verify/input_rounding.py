"""What llama.cpp rounds before it multiplies: the inputs of a matrix, by the type of the matrix.

On a CPU the inputs of a q8_0, q4_0, … matrix become 8-bit numbers in blocks of 32 (ggml's q8_0), those of a
matrix whose own blocks have 256 values 8-bit numbers in blocks of 256 (q8_K), and those of an f16 or bf16
matrix numbers of that type. Every file of the type has this cost, whatever wrote it.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from torch import Tensor, nn

HALF = {GGMLQuantizationType.F16: torch.float16, GGMLQuantizationType.BF16: torch.bfloat16}
SMALL_BLOCK = 32  # whose scale is stored in f16
LARGEST = 127


@contextmanager
def rounded_inputs(linears: Mapping[nn.Linear, GGMLQuantizationType]) -> Generator[None]:
    """While it lasts, the linear layers compute with inputs that are rounded as their types' are."""
    hooks = [
        linear.register_forward_pre_hook(partial(_round, kind=kind))
        for linear, kind in linears.items()
        if kind is not GGMLQuantizationType.F32
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _round(_linear: nn.Module, inputs: tuple[Any, ...], kind: GGMLQuantizationType) -> tuple[Any, ...]:
    return rounded(inputs[0], kind), *inputs[1:]


def rounded(values: Tensor, kind: GGMLQuantizationType) -> Tensor:
    """`values`, (…, columns), as llama.cpp multiplies them with a matrix of this type."""
    if kind in HALF:
        return values.to(HALF[kind]).float()
    width = GGML_QUANT_SIZES[kind][0]
    blocks: Any = values.reshape(*values.shape[:-1], -1, width)  # (…, columns / width, width)
    scale = blocks.abs().amax(-1, keepdim=True) / LARGEST
    if width == SMALL_BLOCK:
        scale = scale.half().float()
    numbers = (blocks / scale).nan_to_num(0.0, 0.0, 0.0).round()
    return (numbers * scale).reshape(values.shape)
