"""One look at the whole machine."""

from __future__ import annotations

from pydantic import BaseModel

from .cpu import CpuReading, read_cpu
from .gpu import GpuReading, read_gpus
from .temperature import AskedLimits


class HardwareReading(BaseModel):
    """What there is to train on, and what it is doing now."""

    gpus: list[GpuReading]
    no_gpu_reason: str | None = None
    driver_version: str | None = None
    cuda_version: str | None = None
    """The newest CUDA version that the driver supports."""
    cpu: CpuReading


def read_hardware(asked: AskedLimits | None = None) -> HardwareReading:
    """GPUs, processor and memory at this moment. Blocks for milliseconds.

    Args:
        asked: the user's limits of temperature, to show what they are for each card.

    Raises:
        GpuMonitoringError: there is an NVIDIA driver, but it does not answer as it should.
    """
    found = read_gpus(asked)
    return HardwareReading(
        gpus=found.gpus,
        no_gpu_reason=found.absent,
        driver_version=found.driver_version,
        cuda_version=found.cuda_version,
        cpu=read_cpu(),
    )
