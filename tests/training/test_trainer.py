"""Trainer: the same work in the caller's own process."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from rarer import rarer
from small_models import write_small_model
from tiny_lora import change_json
from transformers import GptOssConfig
from waiting import busy_device, small_spec

from backpropagate import Callbacks, Trainer, inspect_dataset
from backpropagate.training.config.results import TrainResult
from backpropagate.training.errors import DatasetParseError, InputError, ModelLoadError
from backpropagate.training.events import Event
from backpropagate.training.next_step import then
from backpropagate.training.runs.after_status import next_step_of
from backpropagate.training.runs.folder import Status
from backpropagate.training.service import TrainingService
from backpropagate.training.worker.torch_allocator import ALLOCATOR


def a_trainer(model: Path, **settings: object) -> Trainer:
    return Trainer(str(model), lora_r=4, batch_size=100, threads=1, **settings)  # type: ignore[arg-type]


def test_it_trains_records_a_run_fires_every_callback_and_saves(
    service: TrainingService, dataset: Path, tiny_model: Path, tmp_path: Path
) -> None:
    seen: list[Event] = []
    record = Callbacks(
        on_step=seen.append, on_epoch=seen.append, on_save=seen.append, on_complete=seen.append
    )
    trainer = a_trainer(tiny_model, warmup_steps=0, learning_rate=0.01)
    run = trainer.train(dataset, steps=4, callback=record)
    assert run.status is Status.COMPLETED and len(run.losses) == 4
    assert run.final_loss and run.first_loss and run.final_loss < run.first_loss
    assert {event.kind for event in seen} == {"step", "epoch", "saved", "done"}
    assert service.store.observe(service.store.find(run.run_id)).status is Status.COMPLETED
    saved = trainer.save(tmp_path / "mine")
    assert (saved / "adapter_model.safetensors").is_file()
    with pytest.raises(InputError, match="already exists") as taken:
        trainer.save(tmp_path / "mine")
    assert "overwrite=True" in (taken.value.hint or "")
    assert trainer.save(tmp_path / "mine", overwrite=True) == saved


@pytest.mark.slow
def test_a_run_says_that_its_held_out_rows_take_longer_than_its_step(
    service: TrainingService, tiny_model: Path, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"prompt": "Number {n}?", "completion": "It is {n}."}}\n' for n in range(40)))
    trainer = Trainer(str(tiny_model), lora_r=4, batch_size=2, threads=1, held_out=0.5)
    state = service.store.find(trainer.train(rows, steps=1).run_id).state()
    [said] = [warning for warning in state.warnings if "held-out" in warning]
    assert "Evaluating 20 held-out rows" in said and "held_out=0.2 holds out 8." in said
    assert isinstance(state.result, TrainResult) and state.result.eval_loss_before is None


@pytest.mark.skipif(sys.platform == "win32", reason="torch has no segments that grow there")
def test_torch_is_told_to_hold_little_memory_while_it_trains(
    dataset: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ALLOCATOR:
        monkeypatch.delenv(name, raising=False)
    seen: set[str | None] = set()
    told = Callbacks(on_step=lambda event: seen.add(os.environ.get("PYTORCH_ALLOC_CONF")))
    a_trainer(tiny_model).train(dataset, steps=1, callback=told)
    assert seen == {"expandable_segments:True"} and "PYTORCH_ALLOC_CONF" not in os.environ


def test_it_trains_on_a_list_of_files(service: TrainingService, tiny_model: Path, tmp_path: Path) -> None:
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for number, file in enumerate(files):
        file.write_text(f'{{"prompt": "Number {number}?", "completion": "Yes"}}\n')
    run = a_trainer(tiny_model).train([str(files[0]), files[1]], steps=1)
    result = service.store.observe(service.store.find(run.run_id)).result
    assert isinstance(result, TrainResult) and result.rows == 2
    assert inspect_dataset(files).files == ["a.jsonl", "b.jsonl"]


@pytest.mark.parametrize("rows", [["a.jsonl", 3], {"text": ["a"]}])
def test_columns_in_memory_are_not_accepted_and_the_way_out_is_told(
    home: Path, tiny_model: Path, rows: Any
) -> None:
    for call in (a_trainer(tiny_model).train, inspect_dataset):
        with pytest.raises(InputError, match=r"rows in memory \((dict|int)\)") as error:
            call(rows)
        assert ".jsonl file" in (error.value.hint or "")


@pytest.mark.slow
def test_the_same_spec_gives_the_same_losses_bit_for_bit(
    service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    runs = [a_trainer(tiny_model, lora_dropout=0.1).train(dataset, steps=6) for _ in range(2)]
    assert runs[0].losses == runs[1].losses and len(runs[0].losses) == 6


def test_a_failure_is_recorded_told_to_on_error_and_raised(
    service: TrainingService, tiny_model: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{oops\n")
    seen: list[Event] = []
    with pytest.raises(DatasetParseError, match=r"bad\.jsonl:1"):
        a_trainer(tiny_model).train(bad, callback=Callbacks(on_error=seen.append))
    assert [event.kind for event in seen] == ["error"]
    run = service.store.find(service.store.ids()[0])
    assert run.state().status is Status.FAILED


def test_a_busy_device_is_a_warning_not_a_wait(
    service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    device = busy_device(Path(os.environ["BACKPROPAGATE_RUNTIME_DIR"]))
    run = a_trainer(tiny_model).train(dataset, steps=1)
    device.release()
    warnings = (run.run_folder / "events.jsonl").read_text()
    assert "Another run uses the device" in warnings and run.status is Status.COMPLETED


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        rarer({"held_out": 0, "eval_every": 1, "patience": 2}, {"eval_every", "patience"}),
        ({"held_out": 0.5, "patience": 2, "system": "Be brief."}, {"patience", "system"}),
        rarer({"held_out": 0, "split": "train", "dataset_revision": "v1"}, {"split", "dataset_revision"}),
        rarer({"held_out": 0, "separator": "---", "revision": "main"}, {"separator", "revision"}),
        ({"held_out": 0, "weights": "gpu", "micro_batch_tokens": 512}, {"weights"}),
        (
            {"held_out": 0, "engine": "trl", "recompute": "everything", "micro_batch_tokens": 512},
            {"recompute", "micro_batch_tokens"},
        ),
    ],
)
def test_a_setting_that_means_nothing_in_this_run_is_named(
    service: TrainingService, dataset: Path, tiny_model: Path, settings: dict[str, Any], named: set[str]
) -> None:
    run = a_trainer(tiny_model, **settings).train(dataset, steps=1)
    told = [*run.warnings, *run.result.notes]
    assert {sentence.split()[0] for sentence in told if " is not used: " in sentence} == named


@pytest.mark.slow
def test_after_the_training_of_a_model_that_has_no_gguf_another_export_is_named(
    service: TrainingService, dataset: Path, tiny_model: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    change_json(model / "config.json", hidden_act="gelu")
    run = a_trainer(model).train(dataset, steps=1)
    state = service.store.find(run.run_id).state()
    assert "hidden_act" in run.result.no_gguf
    assert next_step_of(run.run_id, small_spec(dataset, model), state) == then(
        "export", source=run.run_id, format="merged"
    )


def test_a_model_that_the_installed_transformers_would_compute_otherwise_is_refused(
    home: Path, dataset: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_small_model("gpt_oss", tmp_path / "model", tiny_model, swiglu_limit=3.0)
    monkeypatch.delattr(GptOssConfig, "swiglu_limit", raising=False)  # as in transformers 5.17
    with pytest.raises(ModelLoadError, match=r"swiglu_limit = 3\.0, and transformers .* computes with 7\.0"):
        a_trainer(model).train(dataset, steps=1)


def test_settings_that_are_wrong_are_told_at_once(home: Path, tiny_model: Path) -> None:
    with pytest.raises(InputError, match="lora_r"):
        Trainer(str(tiny_model), lora_r=0)
    with pytest.raises(InputError, match="not a model name"):
        Trainer("qwen2.5-7x")
    with pytest.raises(InputError, match="Unknown argument 'lorar'"):
        Trainer(str(tiny_model), lorar=3)  # type: ignore[call-arg]
