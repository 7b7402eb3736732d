"""What each NVIDIA GPU is doing now, read from the driver (NVML). Takes milliseconds and never waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from pydantic import BaseModel

from ..errors import GpuMonitoringError
from ..untrusted import short_name

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
    memory_total_mib: int | None = None
    memory_used_mib: int | None = None
    memory_free_mib: int | None = None
    temperature_c: int | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    utilization_percent: int | None = None
    fan_percent: int | None = None
    processes: list[GpuProcess]


class GpuReadings(NamedTuple):
    """All GPUs, the versions of the driver and of the CUDA that it offers, or why there is no GPU."""

    gpus: list[GpuReading]
    driver_version: str | None = None
    cuda_version: str | None = None
    absent: str | None = None


def read_gpus() -> GpuReadings:
    """Read every GPU.

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
        raise _monitoring_error("NVML did not start", error) from error
    try:
        return _read_all(nvml)
    finally:
        nvml.nvmlShutdown()


def _reason(nvml: Any, value: int) -> str | None:
    reasons: dict[int, str] = {
        nvml.NVML_ERROR_LIBRARY_NOT_FOUND: "No NVIDIA driver is installed.",
        nvml.NVML_ERROR_DRIVER_NOT_LOADED: "The NVIDIA driver is installed, but not loaded.",
    }
    return reasons.get(value)


def _read_all(nvml: Any) -> GpuReadings:
    try:
        gpus = [_read(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
    except nvml.NVMLError as error:
        raise _monitoring_error("The GPUs could not be counted", error) from error
    return GpuReadings(
        gpus,
        driver_version=_offered(nvml, nvml.nvmlSystemGetDriverVersion),
        cuda_version=_version(_offered(nvml, nvml.nvmlSystemGetCudaDriverVersion_v2)),
        absent=None if gpus else "The NVIDIA driver reports no GPU.",
    )


def _read(nvml: Any, index: int) -> GpuReading:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        memory = _offered(nvml, nvml.nvmlDeviceGetMemoryInfo, handle)
        utilization = _offered(nvml, nvml.nvmlDeviceGetUtilizationRates, handle)
        return GpuReading(
            index=index,
            name=short_name(nvml.nvmlDeviceGetName(handle)),
            uuid=nvml.nvmlDeviceGetUUID(handle),
            memory_total_mib=memory and memory.total // MIB,
            memory_used_mib=memory and memory.used // MIB,
            memory_free_mib=memory and memory.free // MIB,
            temperature_c=_offered(nvml, nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
            power_w=_watts(_offered(nvml, nvml.nvmlDeviceGetPowerUsage, handle)),
            power_limit_w=_watts(_offered(nvml, nvml.nvmlDeviceGetEnforcedPowerLimit, handle)),
            utilization_percent=utilization and utilization.gpu,
            fan_percent=_offered(nvml, nvml.nvmlDeviceGetFanSpeed, handle),
            processes=_processes(nvml, handle),
        )
    except nvml.NVMLError as error:
        raise _monitoring_error(f"GPU {index} could not be read", error) from error


def _offered(nvml: Any, read: Callable[..., Any], *arguments: Any) -> Any:
    """A reading, or None where this card, this driver or this user does not get it."""
    try:
        return read(*arguments)
    except nvml.NVMLError as error:
        if error.value in (
            nvml.NVML_ERROR_NOT_SUPPORTED,
            nvml.NVML_ERROR_FUNCTION_NOT_FOUND,
            nvml.NVML_ERROR_NO_PERMISSION,
        ):
            return None
        raise


def _processes(nvml: Any, handle: Any) -> list[GpuProcess]:
    """Computing and drawing processes, each once, the largest first."""
    computing: list[Any] = _offered(nvml, nvml.nvmlDeviceGetComputeRunningProcesses, handle) or []
    drawing: list[Any] = _offered(nvml, nvml.nvmlDeviceGetGraphicsRunningProcesses, handle) or []
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


def _version(number: int | None) -> str | None:
    """NVML's 12040 is CUDA 12.4."""
    return None if number is None else f"{number // 1000}.{number % 1000 // 10}"


def _monitoring_error(what: str, error: Exception) -> GpuMonitoringError:
    return GpuMonitoringError(
        f"{what}: {short_name(error)}.",
        hint="Run nvidia-smi: if it fails too, the driver has to be reloaded or the machine restarted.",
        cause=error,
        untrusted=str(error),
    )
