"""Runs on a GPU that becomes too hot: real workers, and a driver library of our own that tells temperatures.

The run holds the GPU in the device queue. torch does not see such a GPU and computes on the CPU.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from waiting import events_of, steps_of, wait_for_step, wait_until

from backpropagate.training.events import CheckpointSaved, Event, Phase, Warned
from backpropagate.training.hardware.temperature import AskedLimits, Limits, limits_of
from backpropagate.training.runs.folder import RunFolder, Status
from backpropagate.training.runs.store import RunStore

TRAIN_HERE = """
import sys
from backpropagate import Trainer
from backpropagate.training.errors import GpuTemperatureCriticalError
try:
    Trainer(sys.argv[1]).train(sys.argv[2], steps=1)
except GpuTemperatureCriticalError as error:
    print(error)
"""
LOST = -15  # NVML's code for it
CARDS_OWN = AskedLimits(pause_c=None, cool_by_c=8, critical_c=None)


class Machine:
    """A machine with two GPUs, whose temperatures the test sets; runs use the one with this UUID."""

    def __init__(self, driver: Path, folder: Path, home: Path, uuid: str) -> None:
        self._file = folder / "temperatures"
        self._home = home
        self._environment = os.environ | {
            "LD_LIBRARY_PATH": str(driver),
            "FAKE_NVML_TEMPERATURES": str(self._file),
            "CUDA_VISIBLE_DEVICES": uuid,
        }
        self.heat(40, 40)

    def heat(self, first: int, second: int) -> None:
        aside = self._file.with_suffix(".new")
        aside.write_text(f"{first} {second}")
        aside.replace(self._file)

    def backprop(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "backpropagate", *arguments]
        return subprocess.run(
            command,
            env=self._environment | environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", *arguments]
        return subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=240)

    def start(self, dataset: Path, model: Path, *more: str) -> RunFolder:
        """A training that goes on after the command."""
        arguments = ["train", "--data", str(dataset), "--model", str(model), "--batch-size", "2"]
        done = self.backprop(*arguments, "--lora-r", "4", "--threads", "1", "--detach", "--json", *more)
        assert done.returncode == 0, done.stderr
        return RunStore(self._home).find(json.loads(done.stdout)["run_id"])


@pytest.fixture
def machine(driver: Path, tmp_path: Path, home: Path) -> Callable[[str], Machine]:
    return lambda uuid: Machine(driver, tmp_path, home, uuid)


def said(run: RunFolder, words: str) -> list[Event]:
    return [e for e in events_of(run) if isinstance(e, Phase | Warned) and words in e.message]


def checkpoints_of(run: RunFolder) -> list[int]:
    return [event.step for event in events_of(run) if isinstance(event, CheckpointSaved)]


def ended(run: RunFolder) -> Any:
    finished = {Status.COMPLETED, Status.FAILED, Status.CANCELLED}
    wait_until(lambda: run.state().status in finished, "the end of the run")
    return run.state()


@pytest.mark.nightly
@pytest.mark.slow
def test_a_run_pauses_while_its_own_gpu_is_hot_and_stops_with_a_checkpoint_when_it_is_critical(
    machine: Callable[[str], Machine], dataset: Path, tiny_model: Path
) -> None:
    box = machine("1")  # the other card is hot all the time
    box.heat(99, 88)
    run = box.start(dataset, tiny_model, "--steps", "100000")
    wait_until(lambda: said(run, "paused: GPU 1 at 88 °C; goes on at 77 °C"), "the pause")
    assert json.loads(box.backprop("show-run", run.run_id, "--json").stdout)["phase"].startswith("paused")
    box.heat(99, 78)  # cooler than where it paused, but not cool
    wait_until(lambda: said(run, "paused: GPU 1 at 78 °C"), "the next reading")
    assert not steps_of(run)
    box.heat(99, 77)
    wait_until(lambda: said(run, "going on: GPU 1 at 77 °C, paused for"), "the end of the pause")
    wait_for_step(run, 2)
    box.heat(99, 91)
    state = ended(run)
    assert (state.status, state.error.code) == (Status.FAILED, "RUNTIME_GPU_TEMPERATURE_CRITICAL")
    assert "GPU 1 is at 91 °C, and 91 °C is critical" in state.error.message and state.error.retryable
    reached = steps_of(run)[-1].step
    assert checkpoints_of(run)[-1] == reached and run.adapter_path.is_dir()

    box.heat(99, LOST)
    resumed = box.backprop("resume", run.run_id, "--detach")
    assert resumed.returncode == 0, resumed.stderr
    wait_for_step(run, reached + 1)
    assert len(said(run, "The temperature of GPU 1 cannot be read: GPU is lost.")) == 1
    box.heat(99, 90)
    wait_until(lambda: said(run, "paused: GPU 1 at 90 °C"), "the second pause")
    run.request_cancel("user")
    assert ended(run).status is Status.CANCELLED


def test_work_that_needs_no_device_says_nothing_of_a_missing_driver(
    machine: Callable[[str], Machine], dataset: Path, tiny_model: Path, home: Path
) -> None:
    arguments = ["inspect", str(dataset), "--model", str(tiny_model)]
    done = machine("GPU-aaaa").backprop(*arguments, FAKE_NVML_INIT="12")
    assert done.returncode == 0, done.stderr
    [inspected] = (home / "runs").iterdir()
    assert not said(RunFolder(inspected), "temperature")


def test_a_training_in_the_callers_process_raises_that_its_gpu_is_critical(
    machine: Callable[[str], Machine], dataset: Path, tiny_model: Path
) -> None:
    box = machine("GPU-aaaa")
    box.heat(93, 40)
    done = box.python(TRAIN_HERE, str(tiny_model), str(dataset))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("GPU 0 is at 93 °C, and 92 °C is critical")


def test_limits_are_the_cards_own_unless_they_are_asked_for() -> None:
    assert limits_of(89, 95, CARDS_OWN) == Limits(pause_c=86, resume_c=78, critical_c=92)
    assert limits_of(None, None, CARDS_OWN) == Limits(pause_c=85, resume_c=77, critical_c=91)
    asked = AskedLimits(pause_c=70, cool_by_c=5, critical_c=0)
    assert limits_of(89, 95, asked) == Limits(pause_c=70, resume_c=65, critical_c=None)


def test_a_limit_that_is_asked_for_moves_the_other_one_out_of_its_way() -> None:
    cool = AskedLimits(pause_c=None, cool_by_c=8, critical_c=80)
    assert limits_of(89, 95, cool) == Limits(pause_c=77, resume_c=69, critical_c=80)
    warm = AskedLimits(pause_c=94, cool_by_c=8, critical_c=None)
    assert limits_of(89, 95, warm) == Limits(pause_c=94, resume_c=86, critical_c=97)
