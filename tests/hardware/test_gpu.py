"""GPU readings through the real binding: from a small driver library of our own, and without a driver."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

READ = """
import json
from backpropagate.training.errors import BackpropagateError
from backpropagate.training.hardware.gpu import read_gpus
try:
    found = read_gpus()
    print(json.dumps({**found._asdict(), "gpus": [gpu.model_dump() for gpu in found.gpus]}))
except BackpropagateError as error:
    print(json.dumps(error.record().model_dump()))
"""
Read = Callable[..., dict[str, Any]]


@pytest.fixture
def read(driver: Path, tmp_path: Path) -> Read:
    """read_gpus in a process of its own, because a library is loaded only once."""

    def read(**environment: str) -> dict[str, Any]:
        environment = {**os.environ, "LD_LIBRARY_PATH": str(driver), **environment}
        run = subprocess.run(
            [sys.executable, "-c", READ], env=environment, cwd=tmp_path, capture_output=True, text=True
        )
        assert run.returncode == 0, run.stderr
        return json.loads(run.stdout)

    return read


def test_every_gpu_is_read_with_its_load(read: Read) -> None:
    found = read()
    assert (found["driver_version"], found["cuda_version"], found["absent"]) == ("570.86.10", "12.8", None)
    first, second = found["gpus"]
    assert (first["index"], first["name"], first["uuid"]) == (0, "Fake H200", "GPU-aaaa")
    assert (second["index"], second["name"], second["uuid"]) == (1, "Fake RTX 3060", "GPU-bbbb")
    assert (first["memory_total_mib"], first["memory_used_mib"], first["memory_free_mib"]) == (
        143771,
        1000,
        142771,
    )
    assert (first["temperature_c"], first["utilization_percent"]) == (44, 97)
    assert (first["power_w"], first["power_limit_w"]) == (123.5, 700.0)


def test_a_reading_that_a_card_does_not_offer_is_none(read: Read) -> None:
    first, second = read()["gpus"]
    assert second["power_w"] is None and second["power_limit_w"] is None
    assert second["utilization_percent"] == 0
    assert first["fan_percent"] is None


def test_each_process_stands_once_with_its_name_and_memory(read: Read) -> None:
    first, second = read()["gpus"]
    assert second["processes"] == []
    own, ended = first["processes"]
    assert own["memory_mib"] == 900 and own["name"].startswith("python")
    assert ended == {"pid": 2147483647, "name": None, "memory_mib": None}


@pytest.mark.parametrize(("code", "reason"), [("12", "No NVIDIA driver"), ("9", "not loaded")])
def test_without_a_driver_there_is_no_gpu_but_a_reason(code: str, reason: str, read: Read) -> None:
    found = read(FAKE_NVML_INIT=code)
    assert found["gpus"] == [] and reason in found["absent"]


def test_a_driver_that_does_not_match_its_library_is_an_error(read: Read) -> None:
    error = read(FAKE_NVML_INIT="18")
    assert error["code"] == "RUNTIME_GPU_MONITORING_FAILED"
    assert "mismatch" in error["message"] and "nvidia-smi" in error["hint"]


def test_a_gpu_that_fell_off_the_bus_is_an_error_with_its_number(read: Read) -> None:
    assert read(FAKE_NVML_READ="15")["message"] == "GPU 0 could not be read: GPU is lost."


def test_the_status_says_when_runs_on_a_card_are_paused_and_who_holds_its_memory(
    driver: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, "LD_LIBRARY_PATH": str(driver), "BACKPROPAGATE_GPU__PAUSE_C": "80"}
    environment |= {"COLUMNS": "200", "FAKE_NVML_OTHER": "1"}
    command = [sys.executable, "-m", "backpropagate", "info"]
    run = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    told = " ".join(run.stdout.split())
    assert "Runs on GPU 0 pause at 80 °C, go on at 72 °C, and stop at 92 °C." in told
    assert "(pid 1, 6247 MiB)" in told
