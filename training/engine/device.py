"""The device that torch sees, its free memory, and how much of it a run has used."""

from __future__ import annotations

from typing import Literal

import psutil
import torch

from ..hardware.cpu import processor_name
from ..untrusted import short_name

MIB = 2**20


def torch_device() -> Literal["cpu", "cuda"]:
    return "cuda" if torch.cuda.is_available() else "cpu"


def free_gpu_bytes() -> int:
    """Free memory of the GPU, 0 without one."""
    return torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else 0


def gpu_capability() -> tuple[int, int] | None:
    """The compute capability of the GPU, such as (9, 0) of a Hopper; None without one."""
    return torch.cuda.get_device_capability() if torch.cuda.is_available() else None


def peak_memory_mib() -> int:
    """The most memory held at a time: of the GPU where there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() // MIB
    memory = psutil.Process().memory_info()
    return getattr(memory, "peak_wset", 0) // MIB or _peak_rss_mib()


def _peak_rss_mib() -> int:
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux, bytes on macOS
    return peak // MIB if sys.platform == "darwin" else peak // 1024


def device_name() -> str:
    """The name of the GPU, as its driver says it, or of the processor."""
    return short_name(torch.cuda.get_device_name()) if torch.cuda.is_available() else processor_name()
