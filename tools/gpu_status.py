"""gpu_status: show the machine's hardware and the processes that use it."""

from __future__ import annotations

import anyio.to_thread

from ..training.hardware.gpu import GpuReading
from ..training.hardware.reading import HardwareReading, read_hardware
from .context import ToolContext, ToolResult, as_lines


class GpuStatus(ToolResult):
    """The GPUs and the CPU of the machine."""

    hardware: HardwareReading

    def text(self) -> str:
        found = self.hardware
        lines = [_gpu_line(gpu) for gpu in found.gpus]
        for gpu in found.gpus:
            lines += [
                f"  GPU {gpu.index} is used by {process.name or 'a process'} (pid {process.pid}, "
                f"{_shown(process.memory_mib, 'MiB')})"
                for process in gpu.processes
            ]
        if found.gpus:
            lines.append(f"Driver {found.driver_version}, CUDA up to {found.cuda_version}.")
        else:
            lines.append(f"No NVIDIA GPU: {str(found.no_gpu_reason).rstrip('.')}.")
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
    return GpuStatus(hardware=await anyio.to_thread.run_sync(read_hardware))


def _gpu_line(gpu: GpuReading) -> str:
    return (
        f"GPU {gpu.index} {gpu.name}: {_shown(gpu.memory_free_mib, 'MiB')} of "
        f"{_shown(gpu.memory_total_mib, 'MiB')} free, {_shown(gpu.temperature_c, '°C')}, "
        f"{_shown(gpu.power_w, 'W')} of {_shown(gpu.power_limit_w, 'W')}, "
        f"load {_shown(gpu.utilization_percent, '%')}"
    )


def _shown(value: float | None, unit: str) -> str:
    return "unknown" if value is None else f"{value:g} {unit}"
