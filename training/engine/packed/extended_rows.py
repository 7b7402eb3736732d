"""Rows with their product by a narrow matrix behind them, which a linear's own product then takes in."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from .gpu_kernels import has_kernels

MOST_COLUMNS = 64
"""Of the narrow matrix: more fill the registers of the kernel."""
LEAST_TOKENS = 1024
"""With fewer, too few of its programs are at work."""
LEAST_SHARED = 228 * 1024
"""Bytes of a multiprocessor's shared memory: its tiles take 160 KiB with numbers of two bytes, and those that
fit a card of games gain nothing."""


def extended_by(x: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """[x, x·M], (tokens, K + R), and x·M, (tokens, R); `matrix` is M, (K, R)."""
    fits = matrix.shape[1] <= MOST_COLUMNS and len(x) >= LEAST_TOKENS and x.element_size() == 2
    if fits and has_kernels(x) and _has_room(x.device):
        from .extend_kernel import extend

        return extend(x, matrix)
    product = torch.mm(x, matrix)
    return torch.cat([x, product], 1), product


@cache
def _has_room(device: torch.device) -> bool:
    cards: Any = torch.cuda
    return getattr(cards.get_device_properties(device), "shared_memory_per_multiprocessor", 0) >= LEAST_SHARED
