"""What a notebook or an older program does with `Trainer`: rows and models in memory, older names."""

from __future__ import annotations

import asyncio
import datetime
import inspect
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import backpropagate
from backpropagate import (
    Callbacks,
    DatasetValidationError,
    Export,
    InputError,
    Trainer,
    TrainingCallback,
    TrainingRun,
    inspect_dataset,
    load_dataset,
    load_model,
    register_with_ollama,
)
from backpropagate.training import errors
from backpropagate.training.trainer.callbacks import Bar, callbacks_of

ROWS = [{"prompt": f"Number {n}?", "completion": f"It is {n}."} for n in range(8)]


def a_trainer(model: Path, **settings: Any) -> Trainer:
    return Trainer(str(model), lora_r=4, batch_size=4, threads=1, held_out=0, report_to="none", **settings)


@pytest.fixture
def run(home: Path, tiny_model: Path) -> tuple[Trainer, TrainingRun]:
    trainer = a_trainer(tiny_model)
    return trainer, trainer.train(ROWS, steps=2)


# --- Rows in memory. ---
def test_rows_become_a_file_that_is_named_by_their_content(
    run: tuple[Trainer, TrainingRun], home: Path, tiny_model: Path
) -> None:
    import datasets

    (file,) = (home / "datasets").iterdir()
    assert [json.loads(line) for line in file.read_text().splitlines()] == ROWS
    trainer, first = run
    again = trainer.train(datasets.Dataset.from_list(ROWS), steps=2)
    assert again.losses == first.losses and list((home / "datasets").iterdir()) == [file]
    assert inspect_dataset(ROWS).rows == 8 and load_dataset(file) == ROWS


class Photo:
    """A type that JSON does not have."""


@pytest.mark.parametrize(
    ("row", "place"),
    [
        ({"prompt": "a", "image": Photo()}, r"dataset\[1\].image is of the type 'Photo'"),
        ({"turns": [{"when": datetime.date(2026, 1, 1)}]}, r"dataset\[1\].turns\[0\].when is .* 'date'"),
        ({"text": b"bytes"}, r"dataset\[1\].text is of the type 'bytes'"),
        ({"score": float("nan")}, r"dataset\[1\].score is the number nan"),
        ({3: "three"}, r"dataset\[1\] has the key '3'"),
        ({"text": "half \ud83d"}, r"dataset\[1\] has half of a character"),
        ("a row", r"dataset\[1\] is of the type 'str'"),
    ],
)
def test_what_json_does_not_have_is_refused_with_its_place(
    home: Path, tiny_model: Path, row: Any, place: str
) -> None:
    with pytest.raises(InputError, match=place):
        a_trainer(tiny_model).train([ROWS[0], row], steps=1)
    assert not list((home / "datasets").iterdir())


def test_endless_rows_and_several_splits_are_refused(
    home: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    def endless() -> Iterator[dict[str, str]]:
        while True:
            yield ROWS[0]

    monkeypatch.setattr("backpropagate.training.requests.rows_in_memory.MOST_BYTES", 10_000)
    with pytest.raises(InputError, match="The rows take more than"):
        a_trainer(tiny_model).train(datasets.IterableDataset.from_generator(endless), steps=1)
    splits = datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS))
    with pytest.raises(InputError, match="dataset has the splits 'train'"):
        a_trainer(tiny_model).train(splits, steps=1)


# --- Models in memory. ---
def test_the_tuned_model_is_there_as_plain_peft(run: tuple[Trainer, TrainingRun]) -> None:
    import torch
    from peft import PeftModel

    trainer, first = run
    assert isinstance(trainer.model, PeftModel) and trainer.model is trainer.model
    tokens = trainer.tokenizer("Number 3?", return_tensors="pt")
    with torch.no_grad():
        tuned = trainer.model(**tokens).logits
        with trainer.model.disable_adapter():
            assert not torch.equal(tuned, trainer.model(**tokens).logits)
    model, _ = load_model(first.run_id)
    with torch.no_grad():
        assert torch.equal(model(**tokens).logits, tuned)
    held = trainer.model
    trainer.train(ROWS, steps=1)
    assert trainer.model is not held


def test_before_a_training_the_model_is_the_base(home: Path, tiny_model: Path) -> None:
    from peft import PeftModel

    assert not isinstance(a_trainer(tiny_model).model, PeftModel)


# --- Saving. ---
def test_a_folder_in_use_is_told_before_the_training(
    run: tuple[Trainer, TrainingRun], tmp_path: Path
) -> None:
    trainer, first = run
    saved = trainer.train(ROWS, steps=1, output=tmp_path / "mine")
    assert saved.output_path == str(tmp_path / "mine") and (tmp_path / "mine" / "README.md").is_file()
    with pytest.raises(InputError, match="mine already exists"):
        trainer.train(ROWS, steps=1, output=tmp_path / "mine")
    assert len(list(first.run_folder.parent.iterdir())) == 2


def test_an_adapter_is_replaced_only_if_that_is_asked_for(
    run: tuple[Trainer, TrainingRun], tmp_path: Path
) -> None:
    trainer, first = run
    assert trainer.save() == first.adapter_path
    trainer.save(tmp_path / "mine")
    (tmp_path / "mine" / "stale").touch()
    with pytest.raises(InputError, match="already exists"):
        trainer.save(tmp_path / "mine")
    trainer.save(tmp_path / "mine", overwrite=True)
    assert not (tmp_path / "mine" / "stale").exists()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").touch()
    with pytest.raises(InputError, match="already exists"):
        trainer.save(tmp_path / "photos", overwrite=True)
    assert trainer.save(tmp_path / "merged", save_merged=True) == tmp_path / "merged"
    assert (tmp_path / "merged" / "config.json").is_file()


# --- Callbacks and progress. ---
def test_a_callback_may_take_the_step_and_its_loss(home: Path, tiny_model: Path) -> None:
    seen: list[tuple[int, float]] = []
    steps: list[int] = []
    run = a_trainer(tiny_model).train(ROWS, steps=2, callback=lambda step, loss: seen.append((step, loss)))
    assert seen == list(enumerate(run.losses, 1))
    a_trainer(tiny_model).train(
        ROWS, steps=2, callback=Callbacks(on_step=lambda step, loss: steps.append(step))
    )
    assert steps == [1, 2] and callbacks_of(print).on_step is print
    with pytest.raises(InputError, match="callback is a str"):
        a_trainer(tiny_model).train(ROWS, steps=1, callback="print")  # type: ignore[arg-type]


def test_callbacks_of_version_1_get_the_arguments_that_they_had(home: Path, tiny_model: Path) -> None:
    told: list[Any] = []
    older = TrainingCallback(
        on_step=lambda step, loss: told.append((step, loss)),
        on_epoch=told.append,
        on_save=told.append,
        on_complete=told.append,
        on_error=told.append,
    )
    run = a_trainer(tiny_model).train(ROWS, steps=2, callback=older)
    assert told == [*enumerate(run.losses, 1), 1, str(run.adapter_path), run]
    told.clear()
    with pytest.raises(DatasetValidationError) as failed:
        a_trainer(tiny_model).train([{"prompt": "no answer", "completion": ""}], steps=1, callback=older)
    assert told == [failed.value]


def test_a_progress_bar_counts_the_steps(
    home: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    a_trainer(tiny_model).train(ROWS, steps=2, progress=True)
    assert "2/2" in capfd.readouterr().err
    monkeypatch.setattr(Bar, "__call__", lambda bar, event: pytest.fail("no bar is wanted"))
    a_trainer(tiny_model).train(ROWS, steps=1)


# --- Older names. ---
def test_what_version_1_exported_is_there_or_says_what_took_its_place() -> None:
    assert backpropagate.GPUMemoryError is errors.GpuOutOfMemoryError
    with pytest.raises(ImportError, match=r"In its place: Trainer\.multi_run"):
        exec("from backpropagate import MultiRunTrainer")
    with pytest.raises(ImportError, match="In its place: inspect_dataset"):
        exec("from backpropagate import validate_dataset")
    with pytest.raises(ImportError, match="checks that every call makes by itself"):
        exec("from backpropagate import safe_path, SecurityConfig")
    assert not hasattr(backpropagate, "NoSuchName")


def test_keywords_of_version_1_are_taken_or_refused_with_the_way(
    run: tuple[Trainer, TrainingRun], tmp_path: Path
) -> None:
    trainer: Any = run[0]
    assert trainer.export("lora", output_dir=tmp_path / "lora").path == tmp_path / "lora"
    with pytest.raises(InputError, match="output is given twice"):
        trainer.export("lora", output_dir=tmp_path, output=tmp_path)
    for refused, way in (
        (lambda: trainer.export("lora", push_to_hub=True), "push_to_hub(repo)"),
        (lambda: trainer.multi_run(ROWS, on_run_complete=print), "ledger"),
        (lambda: trainer.multi_run(ROWS, checkpoint_dir=tmp_path), "folder of its own"),
    ):
        with pytest.raises(InputError, match="which version 1 had") as error:
            refused()
        assert way in (error.value.hint or "")
    with pytest.raises(TypeError, match="stepz"):
        trainer.train(ROWS, stepz=1)


def test_older_fields_of_a_training_and_an_export_are_there(
    run: tuple[Trainer, TrainingRun],
) -> None:
    trainer, first = run
    assert first.loss_history == first.losses and first.output_path == str(first.adapter_path)
    assert first.duration_seconds == first.duration_s and first.samples_seen == 8
    assert first.metadata["steps"] == 2
    exported = trainer.export("lora")
    assert isinstance(exported, backpropagate.ExportResult) and backpropagate.ExportResult is Export
    assert exported.format == "lora" and exported.quantization is None and exported.size_mb > 0
    assert str(exported.path) in exported.summary() and exported.export_time_seconds >= 0


def test_older_arguments_are_accepted_and_those_without_effect_say_so(
    home: Path, tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        trainer = Trainer(
            str(tiny_model), use_unsloth=False, unsloth_fallback=False, oom_recovery=False, threads=1
        )
    assert "unsloth_fallback=False is not used" in caplog.text
    assert trainer.train(ROWS, steps=1, resume_from="off").steps == 1
    with pytest.raises(InputError, match="system is given twice"):
        register_with_ollama("a.gguf", "name", system="a", system_prompt="b")


def test_the_whole_tree_of_errors_and_the_settings_are_public() -> None:
    tree = {
        name
        for name, found in vars(errors).items()
        if inspect.isclass(found) and issubclass(found, errors.BackpropagateError)
    }
    assert tree <= set(backpropagate.__all__)
    assert backpropagate.settings == backpropagate.get_settings()


def test_it_works_inside_a_running_event_loop(home: Path, tiny_model: Path) -> None:
    async def cell() -> TrainingRun:
        return a_trainer(tiny_model).train(ROWS, steps=1)

    assert asyncio.run(cell()).steps == 1
