"""The load of this machine, for a training's curve beside it."""

from __future__ import annotations

from contextlib import suppress

import psutil

from ..errors import GpuMonitoringError
from ..hardware.gpu import GpuReading, read_gpus


def system_load() -> dict[str, float]:
    """Processor, memory and every GPU; the processor's share is that since the last call."""
    load = {
        "system/cpu_percent": psutil.cpu_percent(),
        "system/memory_percent": psutil.virtual_memory().percent,
    }
    with suppress(GpuMonitoringError):
        for gpu in read_gpus().gpus:
            load |= _of_gpu(gpu)
    return load


def _of_gpu(gpu: GpuReading) -> dict[str, float]:
    readings = {
        "utilization_percent": gpu.utilization_percent,
        "memory_used_mib": gpu.memory_used_mib,
        "temperature_c": gpu.temperature_c,
        "power_w": gpu.power_w,
    }
    return {f"system/gpu{gpu.index}_{name}": value for name, value in readings.items() if value is not None}
