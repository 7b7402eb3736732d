"""Who else holds memory of a run's GPU."""

from __future__ import annotations

import os

from ..errors import GpuMonitoringError
from .devices import CPU, training_devices
from .gpu import GpuProcess, GpuReading, read_gpus

LEAST_MIB = 100
MOST_NAMED = 3


def held_by_others() -> str:
    """`6.1 GiB are held by process 4242 (ollama)`, of the GPU that this process uses; or nothing.

    Never raises: it is asked where something else is told.
    """
    device = training_devices("auto")[0]
    if device == CPU:
        return ""
    try:
        found = [gpu for gpu in read_gpus().gpus if gpu.uuid == device]
    except GpuMonitoringError:
        return ""
    return ", ".join(_held(process) for gpu in found for process in _others(gpu)[:MOST_NAMED])


def _others(gpu: GpuReading) -> list[GpuProcess]:
    """The largest first; none where the driver counts processes differently, as in some containers."""
    import psutil

    own = {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}
    if not own & {process.pid for process in gpu.processes}:
        return []
    return [
        process
        for process in gpu.processes
        if process.pid not in own and (process.memory_mib or 0) >= LEAST_MIB
    ]


def _held(process: GpuProcess) -> str:
    name = f" ({process.name})" if process.name else ""
    return f"{(process.memory_mib or 0) / 1024:.1f} GiB are held by process {process.pid}{name}"
