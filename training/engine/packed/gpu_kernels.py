"""Whether tensors are computed with by kernels of Triton or in plain steps of torch, and how those start."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
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


MOST_COMPILED = 8
"""At a time."""
_only_compiled = ContextVar("only_compiled", default=False)


def launch(
    kernel: Any, grid: tuple[int, ...], device: torch.device, *arguments: Any, **constants: Any
) -> None:
    """Launch a kernel of Triton; inside of `only_compiling` it is compiled at most."""
    with torch.cuda.device(device):
        kernel.run(*arguments, grid=grid, warmup=_only_compiled.get(), **constants)


@contextmanager
def only_compiling() -> Generator[None]:
    """Nothing is launched inside of it.

    What kernels would have written is arbitrary then, and must not be an index of anything.
    """
    before = _only_compiled.set(True)
    try:
        yield
    finally:
        _only_compiled.reset(before)


def compile_together(run: Callable[[], object]) -> None:
    """Compile the kernels that `run` launches, several at a time, without launching them."""
    try:
        mode: Any = import_module("triton.runtime._async_compile").AsyncCompileMode
    except ImportError:  # before 3.5
        return
    threads = min(MOST_COMPILED, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads) as pool, mode(pool), only_compiling():
        run()
