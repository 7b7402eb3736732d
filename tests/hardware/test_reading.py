"""The whole machine in one reading."""

from __future__ import annotations

import subprocess
import sys
from time import perf_counter

from backpropagate.training.hardware.reading import HardwareReading, read_hardware


def test_a_machine_is_read_at_once_and_survives_json() -> None:
    read_hardware()
    began = perf_counter()
    reading = read_hardware()
    assert perf_counter() - began < 2
    assert HardwareReading.model_validate_json(reading.model_dump_json()) == reading
    assert bool(reading.gpus) == (reading.no_gpu_reason is None)


def test_reading_the_machine_imports_no_training_library() -> None:
    code = (
        "import sys; from backpropagate.training.hardware.reading import read_hardware; read_hardware();"
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
