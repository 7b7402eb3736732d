"""The files of a saved adapter."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file

from backpropagate import Trainer


def test_equal_trainings_write_equal_weight_files_in_every_process(tiny_model: Path, dataset: Path) -> None:
    run = Trainer(str(tiny_model), lora_r=4, batch_size=2, threads=1).train(dataset, steps=1)
    path = run.adapter_path / "adapter_model.safetensors"
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    named = json.loads(content[8 : 8 + length])["__metadata__"]
    # The library's own order is another one in each process.
    assert list(named) == sorted(named) and len(named) == 3 and named["format"] == "pt"
    with safe_open(path, "pt") as file:
        assert file.metadata() == named
        assert set(load_file(path)) == set(file.offset_keys())
