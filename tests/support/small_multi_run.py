"""What tests of multi-runs share: a trainer of a small LoRA, and three datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from backpropagate import Trainer


def a_trainer(model: Path, **settings: Any) -> Trainer:
    small = {"lora_r": 4, "batch_size": 2, "threads": 1, "learning_rate": 1e-3}
    return Trainer(str(model), **{**small, **settings})


def three_datasets(dataset: Path, folder: Path) -> list[Path]:
    """Of other rows each: 60 of the dataset's."""
    rows = dataset.read_text(encoding="utf-8").splitlines()
    paths = [folder / f"{name}.jsonl" for name in ("red", "green", "blue")]
    for path, start in zip(paths, (0, 60, 120), strict=True):
        path.write_text("\n".join(rows[start : start + 60]) + "\n", encoding="utf-8")
    return paths
