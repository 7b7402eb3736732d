"""GPUs as their driver would report them, for plans on a machine without one."""

from __future__ import annotations

import pytest

from backpropagate.training.hardware.cpu import read_cpu
from backpropagate.training.hardware.gpu import GpuReading, GpuReadings
from backpropagate.training.planning import machine


def with_gpus(
    monkeypatch: pytest.MonkeyPatch,
    *gib: float,
    free: float | None = None,
    name: str = "NVIDIA RTX 3090",
    capability: str | None = None,
) -> None:
    """GPUs of these memories, in a machine with 128 GiB.

    Args:
        free: GiB that are free of each; None is all.
    """
    gpus = [
        GpuReading(
            index=number,
            name=name,
            uuid=f"GPU-{number}",
            compute_capability=capability,
            memory_total_mib=int(size * 1024),
            memory_free_mib=int((size if free is None else free) * 1024),
            processes=[],
        )
        for number, size in enumerate(gib)
    ]

    def devices(wanted: str) -> list[str]:
        return ["cpu"] if wanted == "cpu" else [gpu.uuid for gpu in gpus]

    memory = {"memory_total_mib": 128 * 1024, "memory_available_mib": 120 * 1024}
    cpu = read_cpu().model_copy(update=memory)
    monkeypatch.setattr(machine, "read_cpu", lambda: cpu)
    monkeypatch.setattr(machine, "training_devices", devices)
    monkeypatch.setattr(machine, "read_gpus", lambda: GpuReadings(gpus))
