"""The model of a request that names none: one that this machine can train."""

from __future__ import annotations

from typing import Literal

from ..errors import GpuMonitoringError
from ..hardware.devices import CPU, training_devices
from ..hardware.gpu import read_gpus
from ..models.presets import AUTO, PRESETS

GIB_OF_GPU = (("qwen2.5-7b", 32), ("smollm3-3b", 14), ("qwen3-1.7b", 8), ("qwen3-0.6b", 4))
"""Open models, with the least memory of a GPU in GiB for bf16 weights and the activations of a LoRA."""
ON_CPU = "smollm2-135m"


def model_or_default(name: str, device: Literal["auto", "cpu", "cuda"] = "auto") -> str:
    """`name`, or the Hub id of the default model of this machine for `auto`."""
    return name if name != AUTO else PRESETS[_preset(device)].hub_id


def _preset(device: Literal["auto", "cpu", "cuda"]) -> str:
    memory_gib = 0.0 if device == "cpu" else _gpu_memory_gib()
    return next((preset for preset, least in GIB_OF_GPU if memory_gib >= least), ON_CPU)


def _gpu_memory_gib() -> float:
    """Memory of the smallest GPU that a run may get; 0 without one."""
    devices = training_devices("auto")
    if devices == [CPU]:
        return 0.0
    try:
        found = [gpu.memory_total_mib or 0 for gpu in read_gpus().gpus if gpu.uuid in devices]
    except GpuMonitoringError:
        return 0.0
    return min(found, default=0) / 1024
