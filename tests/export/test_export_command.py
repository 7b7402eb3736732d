"""From a training to a model of Ollama: at the command line, and in Python."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from facts import write_dataset
from ollama_stand_in import Fault, OllamaStandIn

from backpropagate import Trainer
from backpropagate.cli.main import run
from backpropagate.training.config import quantizations
from backpropagate.training.errors import InputError
from backpropagate.training.export.gguf.reader import read_gguf_header
from backpropagate.training.runs.folder import RunFolder


def test_one_command_exports_a_run_and_makes_it_a_model_of_ollama(
    copied_run: Callable[[str], RunFolder],
    server: OllamaStandIn,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    training = copied_run("")
    output = tmp_path / "tiny.gguf"
    options = ["--quantization", "q8_0", "--output", str(output), "--ollama", "--ollama-name", "mine"]
    assert run(["export", training.run_id, *options]) == 0
    assert output.is_file() and any("mine" in name for name in server.models)
    assert run(["export", str(output), "--ollama", "--ollama-name", "another"]) == 0
    assert any("another" in name for name in server.models)
    assert "tiny.gguf" in capsys.readouterr().err


def test_what_cannot_go_to_ollama_is_said_before_anything_is_exported(
    copied_run: Callable[[str], RunFolder], capsys: pytest.CaptureFixture[str]
) -> None:
    training = copied_run("")
    assert run(["export", training.run_id, "--ollama"]) == 1
    assert run(["export", training.run_id, "--ollama-name", "no such name"]) == 2
    assert run(["export", training.run_id, "--format", "lora", "--ollama", "--ollama-name", "mine"]) == 1
    assert run(["export", training.run_id, "-q", "q8_0", "--ollama", "--ollama-name", "mine"]) == 2
    said = capsys.readouterr().err
    assert "run_started" not in said and "No Ollama server answers" in said


@pytest.mark.slow
def test_a_name_that_ollama_has_already_is_refused_before_anything_is_exported(
    copied_run: Callable[[str], RunFolder], server: OllamaStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", copied_run("").run_id, "-q", "q8_0", "--ollama", "--ollama-name", "mine"]
    assert run(command) == 0
    assert run(command) == 2
    assert capsys.readouterr().err.count("run_started") == 2
    assert run([*command, "--overwrite"]) == 0


@pytest.mark.slow
def test_a_registration_that_fails_leaves_the_export_with_its_path_and_the_next_step(
    copied_run: Callable[[str], RunFolder],
    server: OllamaStandIn,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "tiny.gguf"
    server.faults["create"] = Fault("refuse", "no space left on device")
    options = ["-q", "q8_0", "--output", str(output), "--ollama", "--ollama-name", "mine"]
    assert run(["export", copied_run("").run_id, *options]) == 3
    shown = capsys.readouterr().out
    assert output.is_file() and "disk space" in shown
    assert f"Next: backprop export {output} --ollama --ollama-name mine" in shown


@pytest.mark.nightly
@pytest.mark.slow
def test_an_equal_export_is_found_unless_the_adapter_was_written_anew(
    copied_run: Callable[[str], RunFolder], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    training = copied_run("")
    command = ["export", training.run_id, "--quantization", "f16"]
    assert run(command) == 0
    assert "Same request as run" not in capsys.readouterr().err
    assert run(command) == 0
    assert "Same request as run" in capsys.readouterr().err
    assert len(list(home.glob("runs/*/export/*.gguf"))) == 1
    (training.adapter_path / "adapter_model.safetensors").touch()
    assert run(command) == 0
    assert len(list(home.glob("runs/*/export/*.gguf"))) == 2


@pytest.mark.slow
def test_without_the_extra_an_export_takes_q8_0_and_says_why_but_keeps_to_what_is_named(
    copied_run: Callable[[str], RunFolder],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(quantizations, "find_spec", lambda name: None)
    command = ["export", copied_run("").run_id, "--output", str(tmp_path / "tiny.gguf")]
    assert run([*command, "--quantization", "q4_k_m"]) == 2
    assert "DEP_EXTRA_MISSING" in capsys.readouterr().err
    assert run(command) == 0
    shown = capsys.readouterr()
    assert "q8_0 GGUF of" in shown.out
    assert 'q4_k_m (about half the size) needs llama-cpp-python: pip install "' in shown.err


@pytest.mark.parametrize("asked", [["--quantization", "q8_0"], ["--imatrix"]])
def test_what_only_a_gguf_file_has_is_refused_for_other_formats(
    copied_run: Callable[[str], RunFolder], asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["export", copied_run("").run_id, "--format", "merged", *asked]) == 1
    refused = f"{asked[0][2:]}: only a GGUF file is quantized, not --format merged."
    assert refused in capsys.readouterr().err


@pytest.mark.slow
def test_a_trainer_exports_what_it_has_trained(tiny_model: Path, home: Path, tmp_path: Path) -> None:
    trainer = Trainer(str(tiny_model), lora_r=4, batch_size=4, threads=1)
    with pytest.raises(InputError, match="no training to export"):
        trainer.export()
    trainer.train(write_dataset(tmp_path / "facts.jsonl"), steps=3)
    exported = trainer.export("gguf", quantization="f16", output=tmp_path / "tiny.gguf")
    assert exported.path == tmp_path / "tiny.gguf" and exported.bytes == exported.path.stat().st_size
    assert read_gguf_header(exported.path).metadata["general.architecture"] == "llama"
    assert "tensors read back" in exported.proof[0]
    assert (trainer.export("merged").path / "model.safetensors").is_file()
    assert (trainer.export("lora").path / "adapter_model.safetensors").is_file()
