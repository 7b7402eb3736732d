"""How many questions of each task the merged adapter answers, and the verdict on it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backpropagate import Trainer
from backpropagate.training.data.tokens.kept_rows import read_kept_rows
from backpropagate.training.export.held_out_rows import rows_of_run
from backpropagate.training.runs.folder import RunFolder


def a_task(path: Path, answer: str, rows: int = 40) -> Path:
    lines = [
        json.dumps({"messages": [
            {"role": "user", "content": f"{path.stem} {number}?"},
            {"role": "assistant", "content": answer},
        ]})
        for number in range(rows)
    ]  # fmt: skip
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def trainer(tiny_model: Path) -> Trainer:
    return Trainer(str(tiny_model), lora_r=16, lora_alpha=128, batch_size=8, threads=1, learning_rate=1e-2)


@pytest.mark.slow
def test_the_ledger_has_the_share_of_right_answers_and_what_was_forgotten(
    trainer: Trainer, tmp_path: Path
) -> None:
    tasks = [a_task(tmp_path / "one.jsonl", "yes"), a_task(tmp_path / "two.jsonl", "no")]
    run = trainer.multi_run(tasks=tasks, steps_per_run=60, merge_mode="simple")
    assert [entry.accuracies for entry in run.ledger.runs] == [[1.0], [0.0, 1.0]]
    assert [(task.answered_rows, task.base_accuracy) for task in run.ledger.tasks] == [(8, 0.0)] * 2
    result = run.result
    assert (result.average_accuracy, result.accuracy_backward_transfer) == (0.5, -1.0)
    assert result.accuracy_forgetting == {"one": 1.0}
    assert "50% of the answers right" in result.summary
    verdict = result.verdict
    assert verdict is not None and (verdict.rows, verdict.held_out) == (16, 16), "the rows of both tasks"
    before = sum(task.base_score for task in run.ledger.tasks) / 2
    assert verdict.loss_before == pytest.approx(-before, abs=0.2)
    card = (run.adapter_path / "README.md").read_text(encoding="utf-8")
    assert verdict.sentence in card and "one: " in card and "answers right 0% → 100% → 0%" in card


def test_long_answers_and_texts_are_not_compared(trainer: Trainer, tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text("\n".join(json.dumps({"text": f"{i} abc"}) for i in range(30)), encoding="utf-8")
    tasks = [a_task(tmp_path / "long.jsonl", "abc " * 40), texts, a_task(tmp_path / "short.jsonl", "no", 20)]
    run = trainer.multi_run(tasks=tasks, steps_per_run=1, answers_per_task=5)
    assert [(task.answered_rows, task.base_accuracy) for task in run.ledger.tasks] == [
        (0, None),
        (0, None),
        (5, 0.0),
    ]
    assert run.ledger.runs[-1].accuracies == [None, None, 0.0] and run.result.accuracy_forgetting == {}
    none = trainer.multi_run(tasks=tasks[2:], steps_per_run=1, answers_per_task=0)
    assert none.result.average_accuracy is None and "answers right" not in none.result.summary


@pytest.mark.slow
def test_an_export_is_measured_on_rows_of_every_task(trainer: Trainer, tmp_path: Path) -> None:
    tasks = [a_task(tmp_path / "one.jsonl", "yes"), a_task(tmp_path / "two.jsonl", "no", 10)]
    run = trainer.multi_run(tasks=tasks, steps_per_run=1)
    exported = trainer.export("gguf", quantization="f32")
    assert any("held-out and training rows" in sentence for sentence in exported.proof), exported.proof
    rows = rows_of_run(RunFolder(run.run_folder), run.run_folder.parents[1], 5)
    assert rows is not None and len(rows.rows) == 5
    own = [
        {tuple(row.input_ids) for row in read_kept_rows(run.run_folder / "tasks", number).scored}
        for number in (1, 2)
    ]
    assert [[tuple(row) in of_task for row in rows.rows] for of_task in own] == [
        [True, False, True, False, True],
        [False, True, False, True, False],
    ]
