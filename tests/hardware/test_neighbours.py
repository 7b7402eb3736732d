"""Other processes that hold memory of the GPU are named where memory is short."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

SHORT_OF_MEMORY = """
import json, sys, torch
from pathlib import Path
from backpropagate.training.engine.out_of_memory import memory_errors
from backpropagate.training.engine.planner import Machine, choose_plan
from backpropagate.training.errors import GpuOutOfMemoryError
from backpropagate.training.hardware.neighbours import held_by_others
from backpropagate.training.requests.train import train_spec
model = Path(sys.argv[1])
plan, reasons = choose_plan(
    train_spec(arguments={"dataset": "/x", "model": str(model)}),
    Machine("cuda", 2**30, 1, held_by_others()),
    examples=8, held_out=0, model=model, adapter=model, base_model_name="m", continue_from=None,
)
try:
    with memory_errors(plan, "training"):
        raise torch.OutOfMemoryError("CUDA out of memory.")
except GpuOutOfMemoryError as error:
    print(json.dumps({"error": error.message, "reason": reasons["recompute"]}))
"""


@pytest.fixture
def short_of_memory(driver: Path, tiny_model: Path) -> Any:
    """What a plan and an error say in a process on the first GPU, which this process uses too."""

    def said(uuid: str) -> dict[str, str]:
        environment = os.environ | {
            "LD_LIBRARY_PATH": str(driver),
            "CUDA_VISIBLE_DEVICES": uuid,
            "FAKE_NVML_OTHER": str(os.getpid()),
        }
        command = [sys.executable, "-c", SHORT_OF_MEMORY, str(tiny_model)]
        run = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        return json.loads(run.stdout)

    return said


@pytest.mark.slow
def test_a_lack_of_memory_and_the_plan_name_who_holds_memory(short_of_memory: Any) -> None:
    said = short_of_memory("GPU-aaaa")
    held = f"6.1 GiB are held by process {os.getpid()} ({psutil.Process().name()})"
    assert said["error"] == f"Memory ran out while training on the cuda. {held}."
    assert said["reason"].endswith(f"; {held}")


@pytest.mark.slow
def test_processes_on_another_card_are_not_named(short_of_memory: Any) -> None:
    assert short_of_memory("GPU-bbbb")["error"] == "Memory ran out while training on the cuda."
