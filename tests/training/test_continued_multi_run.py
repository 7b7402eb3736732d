"""Multi-runs that add runs to an earlier one, or to a training, and that go back to an earlier merge."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from mcp import Client
from safetensors.torch import load_file
from small_multi_run import a_trainer, three_datasets
from torch import Tensor
from waiting import steps_of

from backpropagate import MultiRun, SLAOMerger, Trainer, TrainingService
from backpropagate.cli.main import run as command_line
from backpropagate.server.app import build_server
from backpropagate.tools.follow import submission_note
from backpropagate.training.config.settings import load_settings
from backpropagate.training.config.specs import MultiRunSpec
from backpropagate.training.errors import (
    InputError,
    InvalidSettingError,
    RunNotFoundError,
    TrainingAbortedError,
)
from backpropagate.training.runs.folder import RunFolder
from backpropagate.training.runs.store import RunStore

pytestmark = pytest.mark.anyio
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def files(dataset: Path, tmp_path: Path) -> list[Path]:
    return three_datasets(dataset, tmp_path)


def delivered(run: Path) -> dict[str, Tensor]:
    return load_file(run / "adapter" / WEIGHTS)


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def whole(tiny_model: Path, files: list[Path]) -> MultiRun:
    return a_trainer(tiny_model).multi_run(tasks=files, steps_per_run=3)


@pytest.mark.slow
def test_a_multi_run_in_two_parts_equals_one_in_one_go(
    tiny_model: Path, files: list[Path], whole: MultiRun
) -> None:
    first = a_trainer(tiny_model).multi_run(tasks=files[:2], steps_per_run=3)
    before = contents(first.run_folder)
    second = Trainer(batch_size=2, threads=1, learning_rate=1e-3).multi_run(
        tasks=files[2:], steps_per_run=3, continue_from=first.run_id
    )
    assert contents(first.run_folder) == before
    assert second.ledger == whole.ledger and equal(delivered(second.run_folder), delivered(whole.run_folder))
    assert (second.result.num_runs, second.result.steps, second.result.total_steps) == (3, 3, 3)
    assert [(step.run, step.num_runs) for step in steps_of(RunFolder(second.run_folder))] == [(3, 3)] * 3
    assert "3 of 3 runs merged" in second.result.summary


def test_the_earlier_run_can_be_removed_and_the_later_one_continued_again(
    tiny_model: Path, files: list[Path], whole: MultiRun
) -> None:
    trainer = a_trainer(tiny_model)
    first = trainer.multi_run(tasks=files[:1], steps_per_run=3)
    second = trainer.multi_run(tasks=files[1:2], steps_per_run=3, continue_from=first.run_id)
    shutil.rmtree(first.run_folder)
    shutil.rmtree(first.run_folder.parents[1] / "cache" / "tokens")
    files[0].unlink()
    third = trainer.multi_run(tasks=files[2:], steps_per_run=3, continue_from=second.run_id)
    assert third.ledger == whole.ledger and equal(delivered(third.run_folder), delivered(whole.run_folder))
    with pytest.raises(RunNotFoundError):
        trainer.multi_run(tasks=files[1:], continue_from=first.run_id)


def test_a_training_can_be_task_1(tiny_model: Path, files: list[Path], whole: MultiRun) -> None:
    trainer = a_trainer(tiny_model)
    training = trainer.train(files[0], steps=3)
    run = trainer.multi_run(tasks=files[1:], steps_per_run=3, continue_from=training.run_id)
    assert equal(delivered(run.run_folder), delivered(whole.run_folder))
    assert run.ledger == whole.ledger
    assert [task.name for task in run.ledger.tasks] == ["red", "green", "blue"]
    card = (run.adapter_path / "README.md").read_text(encoding="utf-8")
    assert "Trained in 3 runs" in card and training.run_id in card


@pytest.mark.slow
def test_an_earlier_merge_can_be_delivered_and_gone_on_from(
    tiny_model: Path, files: list[Path], whole: MultiRun
) -> None:
    trainer = a_trainer(tiny_model)
    back = trainer.multi_run(continue_from=whole.run_id, rollback_to=2)
    merged = SLAOMerger.load(whole.run_folder / "merges" / "run-002")
    assert equal(delivered(back.run_folder), merged.get_merged_lora())
    assert back.ledger == whole.ledger.after(2) and len(back.ledger.tasks) == len(back.ledger.runs) == 2
    assert (back.result.steps, back.result.num_runs) == (0, 2)
    for parent in (back, whole):
        again = trainer.multi_run(
            tasks=files[2:], steps_per_run=3, continue_from=parent.run_id, rollback_to=2
        )
        assert again.ledger == whole.ledger
        assert equal(delivered(again.run_folder), delivered(whole.run_folder))


def test_what_cannot_be_continued_is_refused_before_anything_starts(
    tiny_model: Path, files: list[Path], service: TrainingService
) -> None:
    trainer = a_trainer(tiny_model)
    first = trainer.multi_run(tasks=files[:2], steps_per_run=1)
    ids = service.store.ids()

    def refused(message: str, trainer: Trainer = trainer, **arguments: Any) -> None:
        with pytest.raises((InvalidSettingError, InputError), match=message):
            given: dict[str, Any] = {"continue_from": first.run_id, "tasks": files[2:], **arguments}
            trainer.multi_run(**given)

    refused("lora_r=8, but run .* has lora_r=4", a_trainer(tiny_model, lora_r=8))
    refused("model=smollm2-135m, but run", Trainer("smollm2-135m"))
    refused("merge_mode=simple, but run .* was merged with slao", merge_mode="simple")
    refused("rollback_to=3, but run .* has 2 merged runs", rollback_to=3)
    refused("has a task 'green' already", tasks=files[1:])
    refused("rollback_to needs continue_from", continue_from=None, rollback_to=1)
    refused("num_runs=2, but there is no dataset", tasks=None, rollback_to=1, num_runs=2)
    refused("merge_scale=mean, but there is no dataset", tasks=None, rollback_to=1, merge_scale="mean")
    assert service.store.ids() == ids


def test_new_rows_that_an_earlier_task_holds_out_are_refused(
    tiny_model: Path, files: list[Path], dataset: Path
) -> None:
    trainer = a_trainer(tiny_model)
    first = trainer.multi_run(tasks=files[:1], steps_per_run=1)
    files[0].unlink()
    with pytest.raises(
        InvalidSettingError, match=r"Task 'all' trains on \d+ of the held-out rows of task 'red'"
    ):
        trainer.multi_run(tasks={"all": dataset}, steps_per_run=1, continue_from=first.run_id)


def test_replay_and_lambda_go_on_as_in_the_earlier_run(tiny_model: Path, files: list[Path]) -> None:
    trainer = a_trainer(tiny_model)
    first = trainer.multi_run(tasks=files[:1], steps_per_run=1, merge_scale="mean")
    second = trainer.multi_run(tasks=files[1:2], steps_per_run=1, replay=0.2, continue_from=first.run_id)
    assert [task.replayed for task in second.ledger.tasks] == [0, 13]
    assert second.ledger.merge_scale == "mean" and second.ledger.runs[1].scale == 0.5


@pytest.mark.slow
async def test_an_assistant_goes_back_to_an_earlier_merge(
    service: TrainingService, tiny_model: Path, files: list[Path], tmp_path: Path
) -> None:
    first = a_trainer(tiny_model).multi_run(tasks=files[:2], steps_per_run=1)
    async with Client(build_server(service, [tmp_path])) as client:
        call = {"continue_from": first.run_id, "settings": {"rollback_to": 1}}
        result = await client.call_tool("multi_run", call)
    assert not result.is_error and result.structured_content, result.content
    assert "1 of 1 runs merged" in result.content[0].text  # type: ignore[union-attr]
    assert result.structured_content["parent"] == first.run_id
    merged = SLAOMerger.load(first.run_folder / "merges" / "run-001").get_merged_lora()
    assert equal(delivered(service.store.runs / result.structured_content["run_id"]), merged)


def stopped(trainer: Trainer, **arguments: Any) -> str:
    """The id of a multi-run that was cancelled after its first merge."""
    merged = iter([False] * 12)
    with suppress(TrainingAbortedError):
        trainer.multi_run(**arguments, should_stop=lambda: next(merged, True))
    return RunStore(load_settings().home).ids()[0]


@pytest.mark.nightly
@pytest.mark.slow
def test_a_person_continues_a_training_and_is_told_of_a_stopped_multi_run(
    tiny_model: Path, files: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = a_trainer(tiny_model)
    first = trainer.train(files[0], steps=1).run_id
    before = stopped(trainer, tasks=files[1:2], continue_from=first, steps_per_run=50)
    command = ["multi-run", "--continue-from", first, "--task", str(files[1]), "--steps", "1", "--json"]
    assert command_line(command) == 0
    captured = capsys.readouterr()
    assert f"backprop multi-run --resume {before}" in captured.err.replace("\n", " ")
    second = json.loads(captured.out)
    assert second["parent"] == first and len(second["result"]["ledger"]["runs"]) == 2
    assert command_line(["multi-run", "--resume", second["run_id"]]) == 1
    assert f"backprop multi-run --continue-from {second['run_id']}" in capsys.readouterr().err
    assert command_line(["multi-run", "--resume", second["run_id"], "--continue-from", first]) == 1
    assert "resume cannot be given with continue_from" in capsys.readouterr().err


async def test_a_program_that_starts_one_is_told_of_a_stopped_one(
    service: TrainingService, tiny_model: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.dispatch, "start", lambda run: None)
    before = stopped(a_trainer(tiny_model), tasks=files[:2], steps_per_run=50)
    multi = {"steps_per_run": 1}
    tasks = {"red": files[0], "green": files[1]}
    submission = await service.multi_run(tasks=tasks, model=tiny_model, multi=multi, lora_r=4)
    assert submission.resumable == before and f"run {before}" in str(submission_note(submission, None))
    spec = service.store.find(submission.run_id).spec()
    assert isinstance(spec, MultiRunSpec) and [task.name for task in spec.tasks] == ["red", "green"]
    again = await service.multi_run(tasks=tasks, model=tiny_model, multi=multi, lora_r=4)
    assert again.existing and again.resumable is None
