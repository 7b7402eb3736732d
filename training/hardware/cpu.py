"""What this machine can do without a GPU: cores and memory that this process may use, and what fits."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from math import ceil
from pathlib import Path

import psutil
from pydantic import BaseModel

from ..models.presets import PRESETS
from .cgroup import cpu_quota, memory_limit

MIB = 1024 * 1024
BYTES_PER_PARAMETER = 4 * 1.3
"""float32 weights, and 30 % for the adapter, its optimizer state, and what the loading copies."""
ACTIVATIONS_MIB = 1024


class CpuReading(BaseModel):
    """The processor and the memory, as far as this process may use them."""

    name: str
    physical_cores: int
    logical_cores: int
    load_1m: float
    memory_total_mib: int
    memory_available_mib: int
    max_billions: float
    """Billions of parameters that can be fine-tuned in the available memory; 0 when nothing fits."""
    presets: list[str]
    advice: str


def read_cpu() -> CpuReading:
    """Read the processor and the memory."""
    total, available = _memory_mib()
    billions = max_billions(available)
    presets = [name for name, preset in PRESETS.items() if preset.billions <= billions]
    return CpuReading(
        name=processor_name(),
        physical_cores=training_threads(),
        logical_cores=_within_quota(len(_usable())),
        load_1m=round(psutil.getloadavg()[0], 2),
        memory_total_mib=total,
        memory_available_mib=available,
        max_billions=billions,
        presets=presets,
        advice=_advice(billions, presets, available),
    )


def training_threads() -> int:
    """Default number of training threads: one per physical core, within the quota."""
    return _within_quota(_physical_cores())


def max_billions(available_mib: int) -> float:
    """Size of the largest model, in billions of parameters, that LoRA in float32 can train in this memory."""
    return round(max(0.0, (available_mib - ACTIVATIONS_MIB) * MIB / BYTES_PER_PARAMETER / 1e9), 2)


def _advice(billions: float, presets: list[str], available_mib: int) -> str:
    memory = f"{available_mib / 1024:.1f} GiB of available memory"
    if not presets:
        return f"The CPU has too little memory to fine-tune any preset: {memory}."
    return (
        f"On the CPU, models up to about {billions:g} billion parameters fit {memory}: {', '.join(presets)}. "
        "Training time grows with the size: use the smallest model that is sufficient."
    )


def _memory_mib() -> tuple[int, int]:
    memory = psutil.virtual_memory()
    total, available = memory.total, memory.available
    group = memory_limit()
    if group:
        total, available = min(total, group.limit), min(available, group.limit - group.used)
    return total // MIB, max(0, available) // MIB


def _usable() -> list[int]:
    """The logical cores on which this process may run."""
    if sys.platform == "linux":
        return sorted(os.sched_getaffinity(0))
    return list(range(psutil.cpu_count() or 1))


def _physical_cores() -> int:
    if sys.platform != "linux":
        return psutil.cpu_count(logical=False) or len(_usable())
    return len({_core(cpu) for cpu in _usable()})


def _core(cpu: int) -> tuple[str, ...]:
    """What the threads of one physical core have in common."""
    topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
    try:
        return tuple((topology / name).read_text() for name in ("physical_package_id", "core_id"))
    except OSError:
        return (str(cpu),)


def _within_quota(cores: int) -> int:
    quota = cpu_quota()
    return cores if quota is None else max(1, min(cores, ceil(quota)))


def processor_name() -> str:
    """As the system calls it."""
    return _name_on_linux() or _name_on_macos() or platform.processor() or platform.machine()


def _name_on_linux() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def _name_on_macos() -> str | None:
    if sys.platform != "darwin":
        return None
    command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
    found = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return found.stdout.strip() or None
