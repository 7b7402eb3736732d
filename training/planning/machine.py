"""The GPU or the CPU that a training would get, and what of it is free; without torch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

from ..errors import GpuMonitoringError, GpuNotAvailableError
from ..hardware.cpu import read_cpu
from ..hardware.devices import CPU, number_of_gpus, training_devices
from ..hardware.gpu import GpuReading, read_gpus
from .memory import GIB, MIB

CUDA_CONTEXT = GIB // 2
"""What CUDA takes of a GPU for a process before it allocates anything."""


@dataclass(frozen=True)
class Machine:
    """What a plan depends on beside the spec.

    Args:
        free_gpu_bytes: once CUDA has started; 0 on a CPU.
        threads: CPU threads to use when the spec does not say.
        held: by whom memory of the GPU is held, if it is.
        total_gpu_bytes: of the whole card, with what CUDA takes; 0 where it is not known.
        name: of the card or the processor.
        free_bytes, total_bytes: of main memory, for each process; 0 where nobody asked.
        processes: that share each step, each with a GPU like this one.
        here: those of each host: weights that are sharded are so over them.
        gpus: of this host that a run may ask for.
        capability: compute capability of the GPU; None where it is not known.
    """

    device: Literal["cpu", "cuda"]
    free_gpu_bytes: int
    threads: int
    held: str = ""
    total_gpu_bytes: int = 0
    name: str = ""
    free_bytes: int = 0
    total_bytes: int = 0
    processes: int = 1
    here: int = 1
    gpus: int = 1
    capability: tuple[int, int] | None = None

    @property
    def together(self) -> str:
        """What shares each step."""
        return f"{self.processes} {'GPUs' if self.on_gpu else 'processes'}"

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"


def machine_for(
    device: Literal["auto", "cpu", "cuda"],
    of_gpus: Literal["smallest", "largest"] = "smallest",
    *,
    gpus: int | Literal["all"] = 1,
) -> Machine:
    """What a run that asks for this device may get.

    Args:
        of_gpus: by their memory, where there are more than it asks for.
        gpus: as asked for.

    Raises:
        GpuNotAvailableError: a GPU is wanted and there is none, or more are than there are.
        GpuMonitoringError: the driver does not say what there is.
    """
    devices = training_devices(device)
    processes = number_of_gpus(gpus, device, devices)
    if devices == [CPU]:
        return shared(this_cpu(), processes)
    found = [gpu for gpu in read_gpus().gpus if gpu.uuid in devices]
    if not found:
        raise GpuMonitoringError("The driver does not tell the memory of the GPU.")
    gpus_by_size = sorted(found, key=lambda gpu: gpu.memory_total_mib or 0)
    gpu = gpus_by_size[0] if of_gpus == "smallest" else gpus_by_size[-min(processes, len(found))]
    return shared(replace(_with_gpu(this_cpu(), gpu), gpus=len(found)), processes)


def shared(machine: Machine, processes: int) -> Machine:
    """The part of a machine that each of several processes has."""
    return replace(
        machine,
        processes=processes,
        here=processes,
        threads=max(1, machine.threads // processes),
        free_bytes=machine.free_bytes // processes,
        total_bytes=machine.total_bytes // processes,
    )


def number_of_shards(processes: Sequence[int]) -> int:
    """Ranks of each host, over which weights may be sharded; 1 where hosts differ in them.

    Args:
        processes: of each host.
    """
    return processes[0] if len(set(processes)) == 1 else 1


def alone(machine: Machine) -> Machine:
    """The same with one process, which has all of main memory."""
    count = machine.processes
    return replace(
        machine,
        processes=1,
        here=1,
        threads=machine.threads * count,
        free_bytes=machine.free_bytes * count,
        total_bytes=machine.total_bytes * count,
    )


def least_free_bytes(uuids: Sequence[str]) -> int | None:
    """What is free of the fullest of some GPUs once CUDA has started there; None if it is not known."""
    with suppress(GpuMonitoringError, GpuNotAvailableError):
        free = [gpu.memory_free_mib for gpu in read_gpus().gpus if gpu.uuid in uuids]
        known = [mib * MIB - CUDA_CONTEXT for mib in free if mib is not None]
        return max(1, min(known)) if known else None
    return None


def left_of(machine: Machine) -> Machine:
    """A machine that has in all what this one has left."""
    total = machine.free_gpu_bytes + CUDA_CONTEXT if machine.on_gpu else 0
    return replace(machine, total_gpu_bytes=total, total_bytes=machine.free_bytes)


def machine_or_cpu(device: Literal["auto", "cpu", "cuda"] = "auto") -> Machine:
    """`machine_for`, or the CPU where the GPU cannot be asked."""
    try:
        return machine_for(device)
    except (GpuMonitoringError, GpuNotAvailableError):
        return this_cpu()


def this_cpu() -> Machine:
    """The processor, with the main memory that this process may use."""
    cpu = read_cpu()
    free, total = cpu.memory_available_mib * MIB, cpu.memory_total_mib * MIB
    return Machine("cpu", 0, cpu.physical_cores, name=cpu.name, free_bytes=free, total_bytes=total)


def _with_gpu(cpu: Machine, gpu: GpuReading) -> Machine:
    """A card that tells no memory of its own shares the host's."""
    total = cpu.total_bytes if gpu.memory_total_mib is None else gpu.memory_total_mib * MIB
    free = cpu.free_bytes if gpu.memory_free_mib is None else gpu.memory_free_mib * MIB
    used = total - free
    held = f"{used / GIB:.1f} GiB are held by others" if used > GIB / 2 else ""
    usable = max(1, free - CUDA_CONTEXT)
    machine = replace(cpu, device="cuda", free_gpu_bytes=usable, held=held, total_gpu_bytes=total)
    return replace(machine, name=gpu.name, capability=_capability(gpu))


def _capability(gpu: GpuReading) -> tuple[int, int] | None:
    if gpu.compute_capability is None:
        return None
    major, minor = gpu.compute_capability.split(".")
    return int(major), int(minor)
