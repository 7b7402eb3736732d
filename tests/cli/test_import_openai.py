"""`backprop import-openai`: what a job of OpenAI's becomes here, and what of it has no counterpart."""

from __future__ import annotations

import io
import json
import re
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from waiting import busy_device

import backpropagate
from backpropagate.cli.main import run
from backpropagate.training.config.specs import TrainSpec
from backpropagate.training.requests.train import train_spec
from backpropagate.training.service import TrainingService

PAGE = Path(backpropagate.__file__).parent / "docs" / "openai.md"
CHOSEN = {"n_epochs": 2, "batch_size": 8, "learning_rate_multiplier": 1.8}
JOB: dict[str, Any] = {
    "object": "fine_tuning.job",
    "id": "ftjob-abc123",
    "model": "gpt-4.1-mini-2025-04-14",
    "fine_tuned_model": "ft:gpt-4.1-mini-2025-04-14:acme:tone:9xYz",
    "status": "succeeded",
    "training_file": "file-abc",
    "validation_file": "file-val",
    "hyperparameters": CHOSEN,
    "method": {"type": "supervised", "supervised": {"hyperparameters": CHOSEN}},
    "seed": 7,
    "integrations": [],
    "shared_with_openai": False,
}


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return written(tmp_path, {})


def written(folder: Path, changed: dict[str, Any]) -> Path:
    path = folder / "job.json"
    path.write_text(json.dumps(JOB | changed))
    return path


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    assert run(["import-openai", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_command_that_is_printed_asks_for_what_the_job_asked_for(
    job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = told(capsys, job, "--data", "my file.jsonl", "--validation", "v.jsonl", "--model", "smollm2-135m")
    given = {"epochs": 2, "batch_size": 8, "learning_rate_multiplier": 1.8, "seed": 7}
    files = {"dataset": "my file.jsonl", "validation": "v.jsonl", "model": "smollm2-135m"}
    assert found["arguments"] == files | given
    words = shlex.split(found["command"])
    assert (
        words[:4] == ["backprop", "train", "--data", "my file.jsonl"]
        and "--learning-rate-multiplier" in words
    )
    assert train_spec(arguments=found["arguments"]).training.epochs == 2
    assert {one["name"]: one["value"] for one in found["mapped"]} == {
        "training_file": "file-abc", "validation_file": "file-val", **CHOSEN, "seed": 7, "suffix": "tone",
    }  # fmt: skip


def test_the_page_shows_what_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = PAGE.read_text(encoding="utf-8")
    (job,), (shown,) = (re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL) for kind in ("json", "text"))
    (command,) = re.findall(r"^backprop (import-openai .*)$", page, re.MULTILINE)
    (tmp_path / "job.json").write_text(job)
    monkeypatch.chdir(tmp_path)
    assert run(shlex.split(command)) == 0
    assert capsys.readouterr().out == shown


def test_what_has_no_counterpart_is_said(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["import-openai", str(job)]) == 0
    said = capsys.readouterr().out
    assert "model 'gpt-4.1-mini-2025-04-14': it has no twin here. Trained instead: auto" in said
    for name in ("training_file 'file-abc'", "validation_file 'file-val'", "shared_with_openai"):
        assert f"Not mapped: {name}" in said
    assert "times the rate that `auto` chooses" in said and "backprop train --data FILE" in said


def test_auto_is_left_to_the_training_and_a_request_is_read_from_stdin(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    request = {"model": "qwen3-0.6b", "training_file": "f", "hyperparameters": {"n_epochs": "auto"}}
    stdin = SimpleNamespace(buffer=io.BytesIO(json.dumps(request).encode()), isatty=lambda: False)
    monkeypatch.setattr(sys, "stdin", stdin)
    found = told(capsys, "-", "--data", "d.jsonl")
    assert found["arguments"] == {"dataset": "d.jsonl", "model": "qwen3-0.6b"}
    assert found["not_mapped"] == []


def test_a_job_on_preferences_becomes_what_is_possible_and_is_not_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    method = {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.1, "n_epochs": 1}}}
    job = written(tmp_path, {"method": method, "hyperparameters": None})
    found = told(capsys, job, "--data", "d.jsonl")
    assert found["arguments"]["columns"] == {"prompt": "input", "completion": "preferred_output"}
    assert any(one.startswith("method dpo:") for one in found["not_mapped"])
    assert any(one.startswith("beta:") for one in found["not_mapped"])
    assert run(["import-openai", str(job), "--data", "d.jsonl", "--start"]) == 1
    assert "method dpo cannot be started" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "is no JSON object"),
        ("{}", "has no model or no training_file"),
        (json.dumps(JOB | {"seed": -1}), "seed: should be greater"),
        (json.dumps(JOB | {"method": {"type": "sft"}}), "method.type: should be 'supervised'"),
    ],
)
def test_a_file_that_is_no_job_is_refused(
    tmp_path: Path, content: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "job.json").write_text(content)
    assert run(["import-openai", str(tmp_path / "job.json")]) == 1
    assert said in capsys.readouterr().err


def test_a_job_is_started_with_its_files_and_keeps_its_name(
    job: Path, dataset: Path, tiny_model: Path, service: TrainingService, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["import-openai", str(job), "--start", "--data", str(dataset)]) == 1
    assert "validation_file 'file-val' is at OpenAI" in capsys.readouterr().err
    files = ["--data", str(dataset), "--validation", str(dataset), "--model", str(tiny_model)]
    busy = busy_device(service.runtime_folder)
    assert run(["import-openai", str(job), *files, "--start", "--detach"]) == 0
    (run_id,) = service.store.ids()
    spec = service.store.find(run_id).spec()
    assert isinstance(spec, TrainSpec) and spec.job
    assert (spec.job.suffix, spec.job.asked, spec.training.seed) == ("tone", CHOSEN, 7)
    assert spec.data.validation == str(dataset)
    assert run(["cancel", run_id]) == 0
    busy.release()
