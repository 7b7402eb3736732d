"""`backprop` as a person runs it, with arguments, output and an exit code."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from finished_runs import finished_run
from waiting import busy_device, wait_for_phase, wait_for_step, wait_until

from backpropagate.cli import main
from backpropagate.tools.status import run_status
from backpropagate.training.config.specs import ExportSpec, ModelGroup, PushSpec
from backpropagate.training.runs.folder import Status
from backpropagate.training.runs.store import RunStore
from backpropagate.training.runs.view import view as run_view


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "backpropagate", *arguments]


def process(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=240)


Backprop = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def backprop(capsys: pytest.CaptureFixture[str]) -> Backprop:
    """As `process`, without the start of one."""

    def backprop(*arguments: str) -> subprocess.CompletedProcess[str]:
        capsys.readouterr()
        code = main.run([*arguments])
        return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())

    return backprop


def train_arguments(dataset: Path, model: Path, *more: str) -> list[str]:
    return [
        *("train", "--data", str(dataset), "--model", str(model)),
        *("--batch-size", "2", "--lora-r", "4", "--threads", "1", *more),
    ]


def test_train_shows_plain_lines_and_the_run_is_there_for_everyone(
    home: Path, dataset: Path, tiny_model: Path, tmp_path: Path, backprop: Backprop
) -> None:
    output = tmp_path / "copy"
    done = process(*train_arguments(dataset, tiny_model, "--steps", "3", "--output", str(output)))
    assert done.returncode == 0, done.stderr
    assert "run_started run_id=" in done.stderr and "step 3/3" in done.stderr
    assert "completed" in done.stdout and (output / "adapter_config.json").is_file()
    listed = backprop("list-runs", "--json")
    runs = json.loads(listed.stdout)
    assert [run["status"] for run in runs] == ["completed"]
    shown = json.loads(backprop("show-run", runs[0]["run_id"][-4:], "--json").stdout)
    promised = {
        *("run_id", "kind", "status", "model", "dataset", "step", "total_steps", "loss", "eta_s"),
        *("created_at", "started_at", "ended_at", "adapter_path", "error", "next"),
    }
    assert promised <= shown.keys()
    assert "completed" in backprop("list-runs", "--status", "completed", "--limit", "1").stdout
    assert "No runs." in backprop("list-runs", "--status", "failed").stdout
    refused = process(*train_arguments(dataset, tiny_model, "--steps", "3", "--output", str(output)))
    assert refused.returncode == 1 and "already exists" in refused.stderr
    removed = backprop("prune", runs[0]["run_id"], "--yes")
    assert removed.returncode == 0 and RunStore(home).ids() == []
    assert re.search(r"train +completed +\d+ kB\nRemoved 1 run\(s\), \d+ kB\.", removed.stdout)


@pytest.mark.skipif(os.name == "nt", reason="a console's Ctrl-C cannot be sent to a pipe's process")
def test_ctrl_c_cancels_and_saves(home: Path, dataset: Path, tiny_model: Path) -> None:
    process = subprocess.Popen(
        command(*train_arguments(dataset, tiny_model, "--steps", "100000")),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    store = RunStore(home)
    wait_until(store.ids, "the run")
    run = store.find(store.ids()[0])
    wait_for_step(run, 2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 3, err
    assert "Cancelling" in err and "cancelled" in out
    assert (run.adapter_path / "adapter_model.safetensors").is_file()


def test_a_detached_run_goes_on_and_can_be_followed_and_cancelled(
    home: Path, dataset: Path, tiny_model: Path, backprop: Backprop
) -> None:
    device = busy_device(Path(os.environ["BACKPROPAGATE_RUNTIME_DIR"]))
    started = process(*train_arguments(dataset, tiny_model, "--steps", "2", "--detach", "--json"))
    assert started.returncode == 0
    run = RunStore(home).find(json.loads(started.stdout)["run_id"])
    wait_for_phase(run, "waiting")
    assert "queued" in backprop("list-runs").stdout
    cancelled = backprop("cancel", run.run_id)
    assert cancelled.returncode == 0 and "cancelled" in cancelled.stdout
    device.release()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["train", "--data", "none.jsonl"], "INPUT_DATASET_NOT_FOUND", "none.jsonl"),
        (["train", "--data", "empty.jsonl"], "INPUT_DATASET_INVALID", "empty"),
        (["train", "--data", "bad.jsonl"], "INPUT_DATASET_PARSE_FAILED", "bad.jsonl:3"),
        (["train", "--data", "good.jsonl", "--steps", "0"], "INPUT_VALIDATION_FAILED", "steps"),
        (["train", "--data", "good.jsonl", "--batch-size", "-1"], "INPUT_VALIDATION_FAILED", "batch_size"),
        (["train", "--data", "good.jsonl", "--model", "qwen2.5-7x"], "INPUT_VALIDATION_FAILED", "qwen2.5-7b"),
        (["train", "--data", "/etc/hosts"], "INPUT_PATH_FORBIDDEN", "system folder"),
        (["train", "--data", "good.jsonl", "--output", "/usr/x"], "INPUT_PATH_FORBIDDEN", "system folder"),
        (["show-run", "nonsense"], "INPUT_RUN_NOT_FOUND", "nonsense"),
        (["prune"], "INPUT_VALIDATION_FAILED", "run ids"),
    ],
)
def test_bad_input_exits_with_one_and_says_what_to_do(
    arguments: list[str],
    code: str,
    words: str,
    home: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    backprop: Backprop,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "good.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n{oops\n')
    if arguments[0] == "train" and "--model" not in arguments:
        arguments = [*arguments, "--model", str(tiny_model)]
    done = backprop(*arguments)
    assert done.returncode == 1, done.stderr
    assert code in done.stderr + done.stdout and words in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_inspect_advises_to_train_with_the_settings_that_it_was_given(
    home: Path, tmp_path: Path, tiny_model: Path, backprop: Backprop
) -> None:
    path = tmp_path / "x.csv"
    path.write_text("a,b\nHi,Ho\nHe,Ha\n")
    given = ["--model", str(tiny_model), "--columns", "prompt=a,completion=b", "--max-seq-length", "64"]
    told = backprop("inspect", str(path), *given).stdout
    asked = """--columns '{"prompt": "a", "completion": "b"}' --max-seq-length 64"""
    assert told.splitlines()[-1] == f"Next: backprop train --data {path} --model {tiny_model} {asked}"


def test_inspect_does_not_advise_to_train_what_cannot_be_trained(
    home: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backprop: Backprop
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "blank.jsonl").write_text("\n\n")
    (tmp_path / "good.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    told = backprop("inspect", "blank.jsonl", "--model", str(tiny_model)).stdout
    assert "error: 1 x no_rows (blank.jsonl)" in told and "Next: Give a dataset with at least one row" in told
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    told = backprop("inspect", "good.jsonl", "--model", "owner/missing").stdout
    assert "Tokens are not counted" in told and "Next: Unset HF_HUB_OFFLINE" in told


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["inspect", "none.jsonl"], "INPUT_DATASET_NOT_FOUND", "none.jsonl"),
        (["show-run", "nonsense"], "INPUT_RUN_NOT_FOUND", "nonsense"),
        (["export", "nonsense"], "INPUT_RUN_NOT_FOUND", "nonsense"),
        (["train", "--stepz", "3"], "INPUT_VALIDATION_FAILED", "--steps"),
    ],
)
def test_an_error_is_json_on_stdout_where_json_was_asked_for(
    arguments: list[str], code: str, words: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run([*arguments, "--json"]) == 1
    shown = capsys.readouterr()
    error = json.loads(shown.out)["error"]
    assert error.keys() == {"code", "message", "hint"} and error["hint"]
    assert error["code"] == code and words in error["message"]
    assert f"[{code}] {error['message']}" in shown.err


def test_backprop_alone_prints_its_help(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run([]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("Usage: backprop") and not shown.err


def test_runs_that_train_nothing_show_neither_steps_nor_a_model_that_they_have_not(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = RunStore(home)
    export = finished_run(store, ExportSpec(model=ModelGroup(name="smollm2-135m")), {}, Status.FAILED)
    push = finished_run(store, PushSpec(folder=str(tmp_path), repo="me/mine"), {}, Status.FAILED)
    assert main.run(["list-runs"]) == 0 and main.run(["show-run", push.run_id]) == 0
    shown = capsys.readouterr().out
    assert "export" in shown and "0/?" not in shown and "loss" not in shown
    assert "  repo     me/mine" in shown and "  model " not in shown
    assert "step" not in run_status(run_view(export, export.state())).text()


def test_usage_errors_exit_with_one_and_name_the_nearest_option(home: Path, backprop: Backprop) -> None:
    done = backprop("train", "--stepz", "3")
    assert done.returncode == 1 and "--steps" in done.stderr


def test_a_wrong_environment_variable_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch, backprop: Backprop
) -> None:
    monkeypatch.setenv("BACKPROPAGATE_LORA__RANK", "8")
    done = backprop("list-runs")
    assert done.returncode == 1 and "CONFIG_INVALID_SETTING" in done.stderr


def test_info_prints_the_error_codes_and_the_settings(home: Path, backprop: Backprop) -> None:
    codes = json.loads(backprop("info", "--error-codes", "--json").stdout)
    assert {"INPUT_DATASET_NOT_FOUND", "RUNTIME_QUEUE_FULL"} <= {row["code"] for row in codes}
    facts = json.loads(backprop("info", "--json").stdout)
    assert "BACKPROPAGATE_LORA__R" in facts["settings"] and facts["hardware"]["cpu"]
    assert "INPUT_VALIDATION_FAILED" in backprop("info", "--error-codes").stdout
    assert "BACKPROPAGATE_TRAINING__LEARNING_RATE" in backprop("info").stdout


def test_info_shows_the_values_in_force_marks_what_is_not_the_default_and_keeps_secrets(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BACKPROPAGATE_LORA__R", "8")
    monkeypatch.setenv("BACKPROPAGATE_EVALUATION__SYSTEM", f"use hf_{'x' * 30}")
    assert main.run(["info"]) == 0
    shown = capsys.readouterr().out
    assert "* BACKPROPAGATE_LORA__R = 8 (default: 16)" in shown
    assert "  BACKPROPAGATE_LORA__DROPOUT = 0" in shown
    assert re.search(r"  BACKPROPAGATE_TRAINING__STEPS = unset +\w", shown)  # and what it is for
    assert "* BACKPROPAGATE_EVALUATION__SYSTEM = use [hidden] (default: unset)" in shown
    monkeypatch.setenv("BACKPROPAGATE_LORA__R", "many")
    assert main.run(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["settings"]["BACKPROPAGATE_LORA__R"]["value"] == 16
    assert "BACKPROPAGATE_LORA__R" in facts["settings_error"]


def test_version_and_help_exit_with_zero(home: Path, backprop: Backprop) -> None:
    assert process("--version").stdout.startswith("backprop, version ")
    listed = backprop("--help")
    assert listed.returncode == 0
    for name in (
        "train",
        "list-runs",
        "show-run",
        "cancel",
        "prune",
        "info",
        "serve",
        "quickstart",
        "inspect",
    ):
        assert name in listed.stdout
        assert backprop(name, "--help").returncode == 0
