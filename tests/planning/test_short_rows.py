"""A training is refused only if its own rows do not fit, not rows as long as they might be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from facts import write_dataset
from mcp import Client
from measured_gpus import with_gpus
from model_configs import config_folder
from tiny_model import build_tiny_model

from backpropagate import Trainer
from backpropagate.server.app import build_server
from backpropagate.training.config.specs import ModelGroup, TrainSpec
from backpropagate.training.errors import GpuOutOfMemoryError
from backpropagate.training.hardware.cpu import read_cpu
from backpropagate.training.planning import machine
from backpropagate.training.planning.data_facts import DataFacts
from backpropagate.training.planning.machine import machine_for
from backpropagate.training.planning.plan_training import plan_training
from backpropagate.training.runs.folder import RunFolder
from backpropagate.training.runs.store import RunStore
from backpropagate.training.service import TrainingService

LONG = {"prompt": "Count.", "completion": "one two three " * 500}


@pytest.fixture(autouse=True)
def _small_machine(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    """Main memory in which the tiny model trains on some hundred tokens at a time, and not on 2,048."""
    cpu = read_cpu().model_copy(update={"memory_total_mib": 645, "memory_available_mib": 645})
    monkeypatch.setattr(machine, "read_cpu", lambda: cpu)


def a_trainer(model: Path, **settings: Any) -> Trainer:
    return Trainer(str(model), lora_r=4, batch_size=100, threads=1, **settings)


def told(run: RunFolder) -> str:
    return (run.path / "events.jsonl").read_text()


def test_short_rows_are_trained_on_one_at_a_time_where_longer_ones_would_not_fit(
    service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    run = a_trainer(tiny_model).train(dataset, steps=1)
    plan = service.store.find(run.run_id).plan()
    assert plan is not None and plan["micro_batch_tokens"] < 200
    assert run.final_loss is not None and not run.warnings


def test_a_row_that_does_not_fit_is_refused_with_its_tokens_before_the_model_is_loaded(
    service: TrainingService, dataset: Path, tmp_path: Path
) -> None:
    model = build_tiny_model(tmp_path / "model", max_position_embeddings=4096)
    dataset.write_text(dataset.read_text() + json.dumps(LONG) + "\n")
    with pytest.raises(GpuOutOfMemoryError, match=r"with 2,048 tokens at a time \(those of the longest row"):
        a_trainer(model).train(dataset, steps=1)
    assert "importing torch" not in told(service.store.find(service.store.ids()[0]))
    run = a_trainer(model, max_seq_length=256).train(dataset, steps=1)
    assert run.final_loss is not None


def test_rows_that_cannot_be_counted_are_taken_to_be_as_long_as_they_may_be_which_is_said(
    service: TrainingService, dataset: Path, tiny_model: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "without")
    (model / "tokenizer.json").unlink()
    with pytest.raises(GpuOutOfMemoryError, match="the lengths of the rows are not known"):
        a_trainer(model).train(dataset, steps=1)


@pytest.mark.anyio
async def test_a_plan_counts_the_rows_before_it_says_that_nothing_fits(
    service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    asked = {"model": str(tiny_model), "settings": {"threads": 1, "lora_r": 4}}
    async with Client(build_server(service, [dataset.parent, tiny_model])) as client:
        counted = await client.call_tool("plan_train", {"dataset": str(dataset), **asked})
        unknown = await client.call_tool("plan_train", asked)
    assert counted.structured_content and counted.structured_content["plan"]["possible"]
    assert unknown.structured_content and not unknown.structured_content["plan"]["possible"]
    assert "the lengths of the rows are not known" in unknown.structured_content["plan"]["why_not"]


def test_a_multi_run_counts_the_rows_of_all_its_tasks(
    service: TrainingService, dataset: Path, tmp_path: Path
) -> None:
    model = build_tiny_model(tmp_path / "model", max_position_embeddings=4096)
    other = write_dataset(tmp_path / "other.jsonl")
    run = a_trainer(model).multi_run(tasks=[str(dataset), str(other)], steps_per_run=1)
    assert run.status == "completed"
    plan = service.store.find(run.run_id).plan()
    assert plan is not None and plan["micro_batch_tokens"] < 200
    other.write_text(json.dumps(LONG) + "\n" + other.read_text())
    with pytest.raises(GpuOutOfMemoryError, match="those of the longest row"):
        a_trainer(model).multi_run(tasks=[str(dataset), str(other)], steps_per_run=1)


def test_a_card_that_holds_short_rows_only_is_planned_with_one_of_them_at_a_time(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_gpus(monkeypatch, 4)
    spec = TrainSpec(model=ModelGroup(name=str(config_folder(tmp_path / "7b", "7b")), load_in_4bit=True))
    short = DataFacts(400, 0, [200] * 400, 0.5, "a test", longest=200)
    plan = plan_training(spec, RunStore(home), machine_for("auto"), short, ask_hub=False)
    assert plan.possible and plan.fits
    assert plan.settings["micro_batch_tokens"] == 200
