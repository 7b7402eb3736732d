"""Whether tensors are computed with by kernels of Triton, or in plain steps of torch."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

from torch import Tensor

WITHOUT = (
    "Triton is not installed, so the GPU computes in plain steps, which takes more time and memory: "
    "pip install triton (on Windows triton-windows)."
)


@cache
def has_triton() -> bool:
    """torch for CUDA brings it on Linux, but not on Windows."""
    return find_spec("triton") is not None


def has_kernels(tensor: Tensor) -> bool:
    """Whether there are kernels for what is done with it."""
    return tensor.is_cuda and has_triton()
