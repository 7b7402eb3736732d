"""What the processor and the memory allow."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from backpropagate.training.hardware import cpu
from backpropagate.training.hardware.cgroup import MemoryLimit
from backpropagate.training.hardware.cpu import max_billions, read_cpu


def test_this_machine_has_a_name_cores_and_memory() -> None:
    reading = read_cpu()
    assert reading.name
    assert 1 <= reading.physical_cores <= reading.logical_cores <= (os.cpu_count() or 1)
    assert 0 < reading.memory_available_mib <= reading.memory_total_mib


@pytest.mark.skipif(sys.platform != "linux", reason="affinity is Linux's")
def test_only_the_cores_that_this_process_may_use_count() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from backpropagate.training.hardware.cpu import read_cpu as r; c = r();"
        "print(c.physical_cores, c.logical_cores)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["1", "1"]


def test_a_container_limits_cores_and_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "cpu_quota", lambda: 0.5)
    monkeypatch.setattr(cpu, "memory_limit", lambda: MemoryLimit(limit=512 * cpu.MIB, used=112 * cpu.MIB))
    reading = read_cpu()
    assert (reading.physical_cores, reading.logical_cores) == (1, 1)
    assert (reading.memory_total_mib, reading.memory_available_mib) == (512, 400)
    assert reading.max_billions == 0 and reading.presets == []
    assert reading.advice == (
        "The CPU has too little memory to fine-tune any preset: 0.4 GiB of available memory."
    )


def test_a_larger_memory_fits_larger_models(monkeypatch: pytest.MonkeyPatch) -> None:
    assert max_billions(500) == 0
    assert max_billions(2048) == 0.21
    monkeypatch.setattr(cpu, "_memory_mib", lambda: (16_000, 8192))
    reading = read_cpu()
    assert reading.presets == ["smollm2-135m", "qwen3-0.6b", "llama3.2-1b"]
    assert "models up to about 1.45 billion parameters fit 8.0 GiB" in reading.advice
