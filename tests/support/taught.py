"""A tiny model that was taught one answer, and ends its turn after it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backpropagate import Trainer
from backpropagate.training.runs.folder import RunFolder

SAID, ANSWERED = "Which colour?", "violet"


def teach(model: Path, folder: Path) -> RunFolder:
    """A completed run in `folder`/home, whose model answers `SAID` with `ANSWERED`."""
    rows = folder / "rows.jsonl"
    rows.write_text((json.dumps({"prompt": SAID, "completion": ANSWERED}) + "\n") * 8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BACKPROPAGATE_HOME", str(folder / "home"))
        patch.setenv("BACKPROPAGATE_RUNTIME_DIR", str(folder / "runtime"))
        settings = {"lora_r": 32, "learning_rate": 0.01, "batch_size": 4, "threads": 1, "held_out": 0}
        return RunFolder(Trainer(str(model), **settings).train(rows, steps=150).run_folder)
