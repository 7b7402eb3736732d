"""A run whose loss was still falling says so, with the call that trains on."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from tiny_model import build_quick_learner

from backpropagate import Trainer
from backpropagate.cli.show import next_command
from backpropagate.tools.status import run_status
from backpropagate.training.config.results import TrainResult
from backpropagate.training.runs.folder import RunFolder
from backpropagate.training.runs.view import RunView, view
from backpropagate.training.worker.loss_curve import still_falling

LEARNS = {"batch_size": 4, "held_out": 0, "threads": 1, "learning_rate": 1e-2, "lr_scheduler": "constant"}
ROWS = {"Which pier?": "Pier three.", "When?": "At nine.", "Who?": "Milo does.", "Where?": "Under the pot."}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    lines = [json.dumps({"prompt": question, "completion": answer}) for question, answer in ROWS.items()]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.fixture
def quick_learner(tmp_path: Path) -> Path:
    return build_quick_learner(tmp_path / "quick")


def trained(model: Path, dataset: Path, steps: int) -> tuple[RunView, TrainResult]:
    run = Trainer(str(model), **LEARNS).train(dataset, steps=steps)  # pyright: ignore[reportArgumentType]
    folder = RunFolder(run.run_folder)
    seen = view(folder, folder.state())
    assert isinstance(seen.result, TrainResult)
    return seen, seen.result


def test_a_run_that_ended_too_early_says_so_and_names_the_call_that_trains_on(
    quick_learner: Path, rows: Path
) -> None:
    seen, result = trained(quick_learner, rows, 16)
    assert result.still_falling and result.lora_share is not None and 0 < result.lora_share < 1
    assert any("still falling" in warning for warning in seen.warnings)
    assert seen.next is not None and seen.next.arguments == {"resume": seen.run_id, "steps": 32}
    assert f'train(resume="{seen.run_id}", steps=32)' in run_status(seen).next
    assert "export_gguf" in run_status(seen).next
    assert next_command(seen).startswith(f"backprop train --resume {seen.run_id} --steps 32")


@pytest.mark.parametrize(
    ("losses", "falling"),
    [
        ([4 - 0.05 * step for step in range(60)], True),
        ([4 * 0.9**step for step in range(120)], False),
        ([2.0] * 40, False),
        ([3.0, 2.0, 1.0], False),
    ],
)
def test_only_a_clear_fall_in_the_last_quarter_counts(losses: list[float], falling: bool) -> None:
    assert still_falling(losses) is falling


def test_the_variation_of_single_batches_is_no_fall() -> None:
    draw = random.Random(0)
    assert not any(still_falling([2 + draw.gauss(0, 0.5) for _ in range(100)]) for _ in range(20))
