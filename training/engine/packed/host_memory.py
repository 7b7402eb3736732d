"""Host memory that a GPU copies from at full speed, while it computes.

torch's own pinned memory is rounded up to a power of two, which for layers of gigabytes may double it.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor


class _Memory(mmap.mmap):
    """Pages of this process, which are unpinned before they go."""

    unpin: Callable[[], object] | None = None

    def __del__(self) -> None:
        if self.unpin is not None:
            self.unpin()


def host_buffer(size: int, device: torch.device) -> Tensor:
    """`size` bytes of host memory; pinned for a GPU, unless the system refuses that (see `is_pinned`)."""
    memory = _Memory(-1, size)
    buffer = torch.frombuffer(memory, dtype=torch.uint8)  # keeps the memory as long as any view of it
    if device.type == "cuda":
        memory.unpin = _pinned(buffer, device)
    return buffer


def _pinned(buffer: Tensor, device: torch.device) -> Callable[[], object] | None:
    """What unpins it again; None if it could not be pinned."""
    torch.cuda.init()  # pyright: ignore[reportUnknownMemberType]
    runtime = cast("Any", torch.cuda.cudart())
    address = buffer.data_ptr()
    if int(runtime.cudaHostRegister(address, buffer.numel(), 0)) == 0:
        return partial(runtime.cudaHostUnregister, address)
    with suppress(RuntimeError):  # the first launch after a refusal raises it
        torch.zeros(1, device=device)
    return None
