"""Runs can be compared: settings, losses in numbers and as a line, data; and resumed on moved data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from finished_runs import finished_run
from waiting import small_spec

from backpropagate.cli import main
from backpropagate.tools.status import run_status
from backpropagate.training.config.specs import PushSpec
from backpropagate.training.data.readers.sources import open_source
from backpropagate.training.errors import InputError
from backpropagate.training.events import Step
from backpropagate.training.runs.folder import RunFolder, Status
from backpropagate.training.runs.store import RunStore
from backpropagate.training.runs.view import view as run_view
from backpropagate.training.service import TrainingService

Captured = pytest.CaptureFixture[str]


def trained(
    home: Path, data: Path, model: Path, status: Status = Status.COMPLETED, **settings: Any
) -> RunFolder:
    """A training with a plan, losses and the record of its data."""
    spec = small_spec(data, model, **settings)
    run = finished_run(RunStore(home), spec, {"steps": 3, "total_steps": 3, "eval_loss": 1.5}, status)
    run.write_plan({"learning_rate": 0.0007, "engine": "packed", "lora": spec.lora.model_dump()})
    known = {"content_hash": open_source(str(data)).content_hash(), "files": [data.name]}
    run.write_provenance({"dataset": {"used": 9, "provenance": known}})
    for step, loss in enumerate((3.0, 2.0, 1.0), 1):
        told = Step(step=step, total_steps=3, loss=loss, learning_rate=1e-3, tokens=1, tokens_per_s=1.0)
        run.event_log().append(told)
    return run


def test_a_run_shows_its_settings_and_its_losses(
    home: Path, dataset: Path, tiny_model: Path, capsys: Captured
) -> None:
    run = trained(home, dataset, tiny_model, lora_r=8, preset="fast", samples=9)
    assert main.run(["show-run", run.run_id]) == 0
    text = capsys.readouterr().out
    assert "learning_rate=0.0005" in text and "lora_r=8" in text and "samples=9" in text
    assert "preset=fast" in text and "threads" not in text and "▅" in text and "3.0 2.0 1.0" in text
    assert main.run(["show-run", run.run_id, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["losses"] == [3.0, 2.0, 1.0]
    assert (shown["settings"]["engine"], shown["settings"]["lora_dropout"]) == ("packed", 0.0)


@pytest.mark.anyio
async def test_an_assistant_gets_them_too(home: Path, dataset: Path, tiny_model: Path) -> None:
    run = trained(home, dataset, tiny_model)
    view = await TrainingService().get(run.run_id)
    short, full = run_status(view), run_status(view, whole=True)
    assert short.settings["learning_rate"] == 0.0007 and "threads" not in short.settings
    assert full.settings["threads"] == 1 and full.losses == [3.0, 2.0, 1.0]
    assert "Settings: " in short.text() and "Losses, means of equal parts: 3.0, 2.0, 1.0." in full.text()


def test_two_runs_are_shown_beside_each_other(
    home: Path, dataset: Path, tiny_model: Path, tmp_path: Path, capsys: Captured
) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text('{"prompt": "a", "completion": "b"}\n')
    first = trained(home, dataset, tiny_model)
    second = trained(home, other, tiny_model, lora_r=8, seed=7)
    assert main.run(["diff-runs", first.run_id, second.run_id, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["settings"] == {"lora_r": [4, 8], "seed": [42, 7]}
    assert shown["data"]["content_hash"][0] != shown["data"]["content_hash"][1]
    assert shown["results"]["losses"] == [[3.0, 2.0, 1.0]] * 2 and shown["results"]["held-out after"] == [
        1.5,
        1.5,
    ]
    assert main.run(["diff-runs", first.run_id, second.run_id]) == 0
    text = capsys.readouterr().out
    assert "lora_alpha" not in text and "SETTINGS THAT DIFFER" in text and "same" in text
    push = finished_run(RunStore(home), PushSpec(folder=str(tmp_path), repo="me/mine"), {}, Status.FAILED)
    assert main.run(["diff-runs", first.run_id, push.run_id]) == 1
    assert "is no training" in capsys.readouterr().err


def test_list_runs_shows_the_newest_twenty(
    home: Path, dataset: Path, tiny_model: Path, capsys: Captured
) -> None:
    for _ in range(22):
        finished_run(RunStore(home), small_spec(dataset, tiny_model), {"steps": 3})
    assert main.run(["list-runs"]) == 0
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 21 and "newest 20: a larger --limit" in shown.err
    assert main.run(["list-runs", "--limit", "30"]) == 0
    assert not capsys.readouterr().err


OTHER = '{"prompt": "x", "completion": "y"}\n'


def test_a_resumed_run_takes_its_own_data_and_settings_and_no_others(
    home: Path, dataset: Path, tiny_model: Path, tmp_path: Path, capsys: Captured
) -> None:
    run = trained(home, dataset, tiny_model, Status.CANCELLED)
    (tmp_path / "other.jsonl").write_text(OTHER)
    (tmp_path / "renamed.jsonl").write_bytes(dataset.read_bytes())

    def refused(*arguments: str) -> str:
        assert main.run([*arguments, "--detach"]) == 1
        return capsys.readouterr().err

    told = refused("train", "--data", str(tmp_path / "other.jsonl"), "--resume", run.run_id)
    assert "its content differs" in told and f"backprop resume {run.run_id}" in told
    told = refused("resume", run.run_id, "--data", str(tmp_path / "renamed.jsonl"))
    assert "its files are called" in told
    with pytest.raises(InputError, match="its content differs"):
        anyio.run(TrainingService().resume_or_extend, run.run_id, None, str(tmp_path / "other.jsonl"))
    told = refused("train", "--data", str(dataset), "--resume", run.run_id, "--lora-r", "8", "--threads", "1")
    assert "resume cannot be given with lora_r." in told
    assert run.state().status is Status.CANCELLED


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_run_resumes_on_moved_data_also_without_its_cache(
    service: TrainingService, home: Path, dataset: Path, tiny_model: Path, tmp_path: Path
) -> None:
    import shutil

    from waiting import wait_for_step

    submitted = await service.submit(small_spec(dataset, tiny_model, steps=100_000, checkpoint_every_steps=5))
    run = service.store.find(submitted.run_id)
    wait_for_step(run, 6)
    await service.cancel(run.run_id)
    await service.wait(run.run_id)
    moved = tmp_path / "elsewhere" / dataset.name
    moved.parent.mkdir()
    dataset.rename(moved)
    shutil.rmtree(home / "cache")
    before = run.state().attempt
    await service.resume(run.run_id, dataset=str(moved))
    step = run_view(run, run.state()).step
    wait_for_step(run, step + 1)
    await service.cancel(run.run_id)
    assert (await service.wait(run.run_id)).dataset == str(moved)
    assert run.state().attempt == before + 1
