"""Which GPUs a run works on, as far as the driver tells."""

from __future__ import annotations

from pathlib import Path

import pytest
from moving_run import MovingRun

from backpropagate.training.errors import GpuMonitoringError
from backpropagate.training.hardware.gpu import GpuProcess, GpuReading, GpuReadings
from backpropagate.training.runs import gpus_of_run as module
from backpropagate.training.runs.gpus_of_run import gpus_of_run
from backpropagate.training.runs.kinds import DeviceRequest
from backpropagate.training.service import TrainingService

PID = 4321


def gpu(index: int, *pids: int) -> GpuReading:
    processes = [GpuProcess(pid=pid) for pid in pids]
    return GpuReading(index=index, name="H100", uuid=f"GPU-{index}", temperature_c=60, processes=processes)


@pytest.fixture
def moving(
    service: TrainingService, dataset: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> MovingRun:
    moving = MovingRun(service, dataset, tiny_model)
    moving.run.write_state(moving.run.state().model_copy(update={"pid": PID}))
    monkeypatch.setattr(
        module, "device_request", lambda _: DeviceRequest("cuda", ["GPU-0", "GPU-1", "GPU-2"])
    )
    return moving


@pytest.mark.parametrize(
    ("gpus", "found"),
    [
        ([gpu(0, 1), gpu(1, 1, PID), gpu(2)], [1]),
        ([gpu(0, 1), gpu(1, 2)], []),  # in a container the driver tells other process ids
        ([gpu(0, 1)], [0]),
        ([gpu(3, PID)], []),  # not one that this run may take
    ],
)
def test_a_run_has_the_cards_on_which_its_worker_holds_memory(
    moving: MovingRun, monkeypatch: pytest.MonkeyPatch, gpus: list[GpuReading], found: list[int]
) -> None:
    monkeypatch.setattr(module, "read_gpus", lambda: GpuReadings(gpus))
    assert [one.index for one in gpus_of_run(moving.run)] == found
    moving.end()
    assert gpus_of_run(moving.run) == []


def test_a_driver_that_fails_and_a_run_on_the_cpu_have_none(
    moving: MovingRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> GpuReadings:
        raise GpuMonitoringError("The GPU fell off the bus.")

    monkeypatch.setattr(module, "read_gpus", fail)
    assert gpus_of_run(moving.run) == []
    monkeypatch.setattr(module, "device_request", lambda _: DeviceRequest("cpu", ["cpu"]))
    monkeypatch.setattr(module, "read_gpus", lambda: GpuReadings([gpu(0)]))
    assert gpus_of_run(moving.run) == []
    moving.end()
