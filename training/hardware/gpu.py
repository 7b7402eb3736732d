"""What each NVIDIA GPU is doing now, read from the driver (NVML). Takes milliseconds and never waits."""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import BaseModel

from ..untrusted import short_name
from .nvml import monitoring_error, offered
from .temperature import AskedLimits, Limits, limits_of_card

MIB = 1024 * 1024


class GpuProcess(BaseModel):
    """A process that holds memory of a GPU."""

    pid: int
    name: str | None = None
    memory_mib: int | None = None


class GpuReading(BaseModel):
    """One GPU at one moment. A reading that the card does not offer is None."""

    index: int
    name: str
    uuid: str
    compute_capability: str | None = None
    """What its cores can do, such as 9.0 of a Hopper."""
    memory_total_mib: int | None = None
    memory_used_mib: int | None = None
    memory_free_mib: int | None = None
    temperature_c: int | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    utilization_percent: int | None = None
    fan_percent: int | None = None
    limits: Limits | None = None
    """The temperatures at which a run on this card is paused and stopped; None without a sensor."""
    processes: list[GpuProcess]


class GpuReadings(NamedTuple):
    """All GPUs, the versions of the driver and of the CUDA that it offers, or why there is no GPU."""

    gpus: list[GpuReading]
    driver_version: str | None = None
    cuda_version: str | None = None
    absent: str | None = None


def read_gpus(asked: AskedLimits | None = None) -> GpuReadings:
    """Read every GPU.

    Args:
        asked: the user's limits of temperature, to show what they are for each card.

    Raises:
        GpuMonitoringError: there is a driver, but it does not answer as it should.
    """
    import pynvml

    nvml: Any = pynvml
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        absent = _reason(nvml, error.value)
        if absent:
            return GpuReadings([], absent=absent)
        raise monitoring_error("NVML did not start", error) from error
    try:
        return _read_all(nvml, asked)
    finally:
        nvml.nvmlShutdown()


def _reason(nvml: Any, value: int) -> str | None:
    reasons: dict[int, str] = {
        nvml.NVML_ERROR_LIBRARY_NOT_FOUND: "No NVIDIA driver is installed.",
        nvml.NVML_ERROR_DRIVER_NOT_LOADED: "The NVIDIA driver is installed, but not loaded.",
    }
    return reasons.get(value)


def _read_all(nvml: Any, asked: AskedLimits | None) -> GpuReadings:
    try:
        gpus = [_read(nvml, index, asked) for index in range(nvml.nvmlDeviceGetCount())]
    except nvml.NVMLError as error:
        raise monitoring_error("The GPUs could not be counted", error) from error
    return GpuReadings(
        gpus,
        driver_version=offered(nvml, nvml.nvmlSystemGetDriverVersion),
        cuda_version=_version(offered(nvml, nvml.nvmlSystemGetCudaDriverVersion_v2)),
        absent=None if gpus else "The NVIDIA driver reports no GPU.",
    )


def _read(nvml: Any, index: int, asked: AskedLimits | None) -> GpuReading:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        memory = offered(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
        utilization = offered(nvml, nvml.nvmlDeviceGetUtilizationRates, handle)
        celsius = offered(nvml, nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU)
        return GpuReading(
            index=index,
            name=short_name(nvml.nvmlDeviceGetName(handle)),
            uuid=nvml.nvmlDeviceGetUUID(handle),
            compute_capability=_capability(offered(nvml, nvml.nvmlDeviceGetCudaComputeCapability, handle)),
            memory_total_mib=memory and memory.total // MIB,
            memory_used_mib=memory and memory.used // MIB,
            memory_free_mib=memory and memory.free // MIB,
            temperature_c=celsius,
            power_w=_watts(offered(nvml, nvml.nvmlDeviceGetPowerUsage, handle)),
            power_limit_w=_watts(offered(nvml, nvml.nvmlDeviceGetEnforcedPowerLimit, handle)),
            utilization_percent=utilization and utilization.gpu,
            fan_percent=offered(nvml, nvml.nvmlDeviceGetFanSpeed, handle),
            limits=None if asked is None or celsius is None else limits_of_card(nvml, handle, asked),
            processes=_processes(nvml, handle),
        )
    except nvml.NVMLError as error:
        raise monitoring_error(f"GPU {index} could not be read", error) from error


def _processes(nvml: Any, handle: Any) -> list[GpuProcess]:
    """Computing and drawing processes, each once, the largest first."""
    computing: list[Any] = offered(nvml, nvml.nvmlDeviceGetComputeRunningProcesses, handle) or []
    drawing: list[Any] = offered(nvml, nvml.nvmlDeviceGetGraphicsRunningProcesses, handle) or []
    memory: dict[int, int | None] = {found.pid: found.usedGpuMemory for found in (*drawing, *computing)}
    processes = [
        GpuProcess(pid=pid, name=_process_name(pid), memory_mib=None if used is None else used // MIB)
        for pid, used in memory.items()
    ]
    return sorted(processes, key=lambda process: -(process.memory_mib or 0))


def _process_name(pid: int) -> str | None:
    import psutil

    try:
        return short_name(psutil.Process(pid).name())
    except psutil.Error:
        return None


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else round(milliwatts / 1000, 1)


def _capability(numbers: tuple[int, int] | None) -> str | None:
    return None if numbers is None else ".".join(map(str, numbers))


def _version(number: int | None) -> str | None:
    """NVML's 12040 is CUDA 12.4."""
    return None if number is None else f"{number // 1000}.{number % 1000 // 10}"
