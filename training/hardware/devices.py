"""Which devices a run may use, known without torch: GPUs by their UUID, or the CPU."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from typing import Any, Literal

from ..errors import GpuNotAvailableError

CPU = "cpu"
ON_CPU = {"TORCHDYNAMO_DISABLE": "1"}
"""Nothing is compiled there; libraries that could would import torch's compiler."""
NOT_INITIALIZED = 3  # CUDA_ERROR_NOT_INITIALIZED


def training_devices(wanted: Literal["auto", "cpu", "cuda"]) -> list[str]:
    """The devices a run may be given: GPU UUIDs, or `["cpu"]`.

    Raises:
        GpuNotAvailableError: a GPU is wanted and there is none.
    """
    if wanted == "cpu":
        return [CPU]
    gpus = _visible(_gpu_uuids())
    if gpus:
        return gpus
    if wanted == "cuda":
        raise GpuNotAvailableError(
            "device is cuda, but no NVIDIA GPU can be used here.",
            hint='Check `nvidia-smi` and CUDA_VISIBLE_DEVICES, or use device="auto".',
        )
    return [CPU]


def number_of_gpus(wanted: int | Literal["all"], device: str, there: list[str]) -> int:
    """How many processes train: one for each GPU.

    Args:
        device: as asked for; only a CPU that was asked for by name can have several processes.
        there: what `training_devices` gives for it.

    Raises:
        GpuNotAvailableError: there are fewer GPUs.
    """
    if there == [CPU]:
        if device != CPU and wanted not in (1, "all"):
            raise GpuNotAvailableError(
                f"gpus is {wanted}, but no NVIDIA GPU can be used here.",
                hint="Check `nvidia-smi` and CUDA_VISIBLE_DEVICES, or set gpus=1.",
            )
        return 1 if wanted == "all" else wanted
    if wanted == "all":
        return len(there)
    if wanted > len(there):
        can = "1 GPU can" if len(there) == 1 else f"{len(there)} GPUs can"
        raise GpuNotAvailableError(
            f"gpus is {wanted}, but only {can} be used here.",
            hint=f'Set gpus={len(there)}, or gpus="all" for as many as there are.',
        )
    return wanted


def use_device(device: str) -> None:
    """Make this the only device that torch sees; must be called before torch initialises CUDA."""
    os.environ["CUDA_VISIBLE_DEVICES"] = "" if device == CPU else device


def cuda_has_started() -> bool:
    """Whether this process has started CUDA's driver, which reads once, then, which devices there are."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return driver.cuDeviceGetCount(ctypes.byref(ctypes.c_int())) != NOT_INITIALIZED


def _gpu_uuids() -> list[str]:
    import pynvml

    nvml: Any = pynvml  # untyped
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return []
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
        return [str(nvml.nvmlDeviceGetUUID(handle)) for handle in handles]
    except nvml.NVMLError:
        return []
    finally:
        with suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


def _visible(uuids: list[str]) -> list[str]:
    """What CUDA_VISIBLE_DEVICES leaves of the GPUs; indices and UUIDs are understood."""
    asked = os.environ.get("CUDA_VISIBLE_DEVICES")
    if asked is None:
        return uuids
    names = [name.strip() for name in asked.split(",") if name.strip()]
    found: list[str] = []
    for name in names:
        if name.isdigit() and int(name) < len(uuids):
            found.append(uuids[int(name)])
        else:
            found.extend(uuid for uuid in uuids if uuid.startswith(name))
    return found
