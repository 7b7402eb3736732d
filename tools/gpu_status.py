"""gpu_status: show the machine's hardware and the processes that use it."""

from __future__ import annotations

import anyio.to_thread

from ..training.hardware.gpu import GpuReading
from ..training.hardware.reading import HardwareReading, read_hardware
from ..training.hardware.temperature import AskedLimits
from .context import ToolContext, ToolResult, as_lines


class GpuStatus(ToolResult):
    """The GPUs and the CPU of the machine."""

    hardware: HardwareReading

    def text(self) -> str:
        found = self.hardware
        lines = [_gpu_line(gpu) for gpu in found.gpus]
        for gpu in found.gpus:
            lines += [f"  {line}" for line in _limits(gpu)]
            lines += [
                f"  GPU {gpu.index} is used by {process.name or 'a process'} (pid {process.pid}, "
                f"{_shown(process.memory_mib, 'MiB')})"
                for process in gpu.processes
            ]
        if found.gpus:
            lines.append(f"Driver {found.driver_version}, CUDA up to {found.cuda_version}.")
        else:
            reason = str(found.no_gpu_reason).rstrip(".")
            lines.append(f"No NVIDIA GPU: {reason}. Temperatures are not watched.")
        cpu = found.cpu
        lines.append(
            f"CPU: {cpu.name}, {cpu.physical_cores} cores, load {cpu.load_1m:g}, "
            f"{cpu.memory_available_mib} of {cpu.memory_total_mib} MiB memory available."
        )
        return as_lines([*lines, cpu.advice] if not found.gpus else lines)


async def gpu_status(context: ToolContext) -> GpuStatus:
    """Show each GPU: memory, temperature, power, load, driver and processes; and the CPU.

    Without a GPU it shows the reason, and what the CPU can train.
    """
    asked = AskedLimits(**context.service.settings.gpu.model_dump())
    return GpuStatus(hardware=await anyio.to_thread.run_sync(read_hardware, asked))


def _gpu_line(gpu: GpuReading) -> str:
    return (
        f"GPU {gpu.index} {gpu.name}: {_shown(gpu.memory_free_mib, 'MiB')} of "
        f"{_shown(gpu.memory_total_mib, 'MiB')} free, {_shown(gpu.temperature_c, '°C')}, "
        f"{_shown(gpu.power_w, 'W')} of {_shown(gpu.power_limit_w, 'W')}, "
        f"load {_shown(gpu.utilization_percent, '%')}"
    )


def _limits(gpu: GpuReading) -> list[str]:
    limits = gpu.limits
    if gpu.temperature_c is None:
        return [f"GPU {gpu.index} tells no temperature: runs are not paused when it is hot."]
    if limits is None:  # not asked for
        return []
    paused = "never pause"
    if limits.pause_c is not None:
        paused = f"pause at {limits.pause_c} °C, go on at {limits.resume_c} °C"
    stopped = "never stop" if limits.critical_c is None else f"stop at {limits.critical_c} °C"
    return [f"Runs on GPU {gpu.index} {paused}, and {stopped}."]


def _shown(value: float | None, unit: str) -> str:
    return "unknown" if value is None else f"{value:g} {unit}"
