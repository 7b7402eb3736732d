"""The commands, flags and variables of version 1, as its users have them in scripts."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import click
import pytest
from tiny_model import build_tiny_model

from backpropagate.cli import main
from backpropagate.training.config.named_settings import LORA_PRESETS, MULTI_RUN_PRESETS, TRAINING_PRESETS
from backpropagate.training.models.presets import classify_model
from backpropagate.training.runs.store import RunStore

Captured = pytest.CaptureFixture[str]

FLAGS = {
    "train": "--model -m --data -d --steps --samples --batch-size --lr --lora-r --output -o --no-unsloth "
    "--resume",
    "multi-run": "--model -m --data -d --runs --steps --samples --merge-mode --output -o --resume",
    "export": "--format -f --quantization -q --output -o --ollama --ollama-name --no-model-card "
    "--push-to-hub --hub-token --hub-private",
    "info": "--error-codes --json --env-vars",
    "config": "--show --set --reset",
    "resume": "--output --data -d",
    "push": "--repo --token --private --include-base",
    "list-runs": "--output --status --limit --json",
    "show-run": "--output --json",
}


def command_of(name: str) -> click.Command:
    context = click.Context(main.backprop)
    found = main.backprop.get_command(context, name)
    assert found is not None
    return found


@pytest.mark.parametrize("name", FLAGS)
def test_every_flag_is_known(name: str) -> None:
    known = {
        flag for parameter in command_of(name).params for flag in (*parameter.opts, *parameter.secondary_opts)
    }
    assert set(FLAGS[name].split()) <= known


@pytest.mark.parametrize("name", main.COMMANDS)
def test_verbose_may_follow_every_command(name: str) -> None:
    flags = [flag for parameter in command_of(name).params for flag in parameter.opts]
    assert flags.count("--verbose") == 1 and "-v" in flags


def test_verbose_after_a_command_shows_the_stack_trace(home: Path, capsys: Captured) -> None:
    assert main.run(["show-run", "none"]) == 1
    assert "Traceback" not in capsys.readouterr().err
    for arguments in (["show-run", "none", "-v"], ["--verbose", "show-run", "none"]):
        assert main.run(arguments) == 1
        assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["export", "a7f3", "--push-to-hub"], "backprop push RUN --repo OWNER/NAME"),
        (["export", "a7f3", "--hub-token", "abc"], "Set HF_TOKEN"),
        (["push", "a7f3", "--repo", "me/x", "--token", "abc"], "Set HF_TOKEN"),
        (["push", "a7f3", "--repo", "me/x", "--include-base"], "--format merged"),
        (["list-runs", "--output", "./out"], "BACKPROPAGATE_HOME"),
        (["train", "--data", "x.jsonl", "--method", "orpo"], "supervised fine-tuning"),
        (["train", "--data", "x.jsonl", "--optim", "adamw_8bit"], "AdamW"),
        (["train", "--data", "x.jsonl", "--fp8"], "--base-precision fp8"),
        (["train", "--data", "x.jsonl", "--full-ft-offload", "cpu"], "supervised fine-tuning"),
        (["multi-run", "--data", "x.jsonl", "--dare-seed", "3"], "--merge-mode"),
        (["info", "--log-level", "debug"], "BACKPROPAGATE_LOG_LEVEL"),
        (["replay", "a7f3"], "backprop show-run"),
        (["export-runs"], "list-runs --json"),
        (["ollama", "list"], "ollama rm"),
    ],
)
def test_a_flag_that_is_refused_names_the_way(
    arguments: list[str], words: str, home: Path, capsys: Captured
) -> None:
    assert main.run(arguments) == 1
    told = capsys.readouterr().err
    assert "INPUT_VALIDATION_FAILED" in told and words in told and "abc" not in told


def test_a_flag_without_a_meaning_is_named_and_ignored(home: Path, capsys: Captured) -> None:
    assert main.run(["export", "a7f3", "--no-model-card"]) == 1
    told = capsys.readouterr().err
    assert "--no-model-card is ignored" in told and "INPUT_RUN_NOT_FOUND" in told


@pytest.mark.parametrize(
    ("older", "name"), [("runs", "list-runs"), ("validate", "inspect"), ("eval", "evaluate")]
)
def test_a_command_of_another_name_is_accepted_and_told(
    older: str, name: str, home: Path, capsys: Captured
) -> None:
    assert main.run([older, "--help"]) == 0
    shown = capsys.readouterr()
    assert f"{older} is called {name} here." in shown.err and shown.out.startswith(f"Usage: backprop {older}")


DOCS = Path(__file__).parents[2] / "docs"
COMMAND_LINE = re.compile(r"^(?:[A-Z_]+=\S+ )?backprop ([a-z].*?)(?:\s{2,}#.*)?$", re.MULTILINE)


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_the_command_lines_of_the_documentation_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = COMMAND_LINE.findall(text)
    assert lines or "\nbackprop " not in text
    for line in lines:
        name, *words = line.split()
        command = command_of(name)
        if isinstance(command, click.Group):
            command = command.commands[words[0]]
        known = {flag for parameter in command.params for flag in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= known, line
        for option, model in pairwise(words):
            if option == "--model" and model.islower() and "/" not in model:
                classify_model(model)


def test_the_presets_of_the_documentation_are_those_of_the_code() -> None:
    text = (Path(__file__).parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")
    for name, values in TRAINING_PRESETS.items():
        rate = f"{values['learning_rate']:.0e}".replace("e-0", "e-")
        batch = f"{values['batch_size']} \N{MULTIPLICATION SIGN} {values['gradient_accumulation_steps']}"
        told = [f"`{name}`", values["lora_r"], values["lora_alpha"], batch, rate, values["warmup_steps"]]
        assert f"| {' | '.join(map(str, told))} | {MULTI_RUN_PRESETS[name]['num_runs']} runs" in text
    for name, values in LORA_PRESETS.items():
        assert f"| `{name}` | {values['lora_r']} | {values['lora_alpha']} |" in text


VARIABLES = {
    "LOG_LEVEL": "debug",
    "LOG_JSON": "true",
    "LOG_FILE": "train.log",
    "DEFER_FEATURE_DETECTION": "1",
    "SECURITY__REQUIRE_AUTH_FOR_SHARE": "true",
    "UI__OUTPUT_DIR": "ui-outputs",
    "MODEL__NAME": "Qwen/Qwen2.5-7B-Instruct",
    "TRAINING__LEARNING_RATE": "2e-4",
    "LORA__R": "16",
    "LORA__LORA_ALPHA": "32",
    "LORA__TARGET_MODULES": '["q_proj", "v_proj"]',
    "MODEL__LOAD_IN_4BIT": "true",
    "TRAINING__MAX_STEPS": "100",
    "TRAINING__OPTIM": "adamw_8bit",
    "TRAINING__BF16": "true",
    "TRAINING__OUTPUT_DIR": "./output",
    "DATA__PACKING": "true",
    "WINDOWS__DATALOADER_NUM_WORKERS": "0",
    "MULTI_RUN__NUM_RUNS": "5",
    "MODEL__TRUST_REMOTE_CODE": "true",
}
"""Of its documentation, with its values."""


def test_all_its_variables_at_once_stop_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in VARIABLES.items():
        monkeypatch.setenv(f"BACKPROPAGATE_{name}", value)
    assert main.run(["list-runs"]) == 0
    told = capsys.readouterr().err
    for name in ("DEFER_FEATURE_DETECTION", "TRAINING__OPTIM", "WINDOWS__DATALOADER_NUM_WORKERS"):
        assert len(re.findall(rf"BACKPROPAGATE_{name} is ignored: ", told)) == 1
    assert main.run(["config", "--show", "--json"]) == 0
    settings = json.loads(capsys.readouterr().out)["settings"]
    values = {name.removeprefix("BACKPROPAGATE_"): fact["value"] for name, fact in settings.items()}
    assert (values["LOG_LEVEL"], values["LORA__ALPHA"], values["TRAINING__STEPS"]) == ("DEBUG", 32, 100)
    assert values["LORA__TARGET_MODULES"] == ["q_proj", "v_proj"] and values["MODEL__LOAD_IN_4BIT"] is True


@pytest.mark.slow
def test_the_commands_of_its_readme_run_as_they_are_written(
    home: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """With a tiny model, and without the network: what needs it is refused with the way."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    build_tiny_model(tmp_path / "model")
    dataset.rename(tmp_path / "my_data.jsonl")

    def run(line: str, code: int = 0) -> str:
        assert main.run(line.split()) == code, line
        shown = capsys.readouterr()
        return shown.out + shown.err

    told = run("train --data my_data.jsonl --model ./model --steps 3 --batch-size 2 -o ./output/lora")
    run_id = re.search(r"run_started run_id=(\S+)", told)
    assert run_id and (tmp_path / "output" / "lora" / "adapter_config.json").is_file()
    told = run(f"train --data my_data.jsonl --model ./model --steps 3 --batch-size 2 --resume {run_id[1]}", 1)
    assert "completed" in told
    run("multi-run --data my_data.jsonl -m ./model --runs 2 --steps 2 --merge-mode simple")
    run("export ./output/lora --format merged --output ./merged --no-model-card")
    refused = "export ./output/lora --format gguf --quantization q8_0 --ollama --ollama-name my-model"
    assert "DEP_OLLAMA_REGISTRATION_FAILED" in run(refused, 2)
    assert "OS " in run("info") and "CONFIG_INVALID" in run("info --error-codes")
    assert (
        "3 " not in run("list-runs --status failed")
        and len(json.loads(run("list-runs --json --limit 100"))) == 3
    )
    assert "settings" in run(f"show-run {run_id[1][-4:]}")
    assert "has completed" in run(f"resume {run_id[1]}", 1)
    run("push ./output/lora --repo me/my-model", 2)
    assert len(RunStore(home).ids()) >= 3
