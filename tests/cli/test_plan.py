"""`backprop plan`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from model_configs import config_folder


def plan(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "backpropagate", "plan", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240)


def test_a_plan_is_shown_with_its_reasons_and_the_command_that_trains(
    home: Path, dataset: Path, tiny_model: Path
) -> None:
    asked = ["--data", str(dataset), "--model", str(tiny_model), "--steps", "4", "--threads", "1"]
    done = plan(*asked)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("It fits.\n") and "Memory: peak" in done.stdout
    assert f"Next: backprop train --data {dataset} --model {tiny_model} --steps 4 --threads 1" in done.stdout
    made = json.loads(plan(*asked, "--lora-preset", "fast", "--json").stdout)
    assert made["settings"]["lora_preset"] == "fast" and made["settings"]["lora_r"] == 16
    assert made["settings"]["lora_target_modules"] == ["q_proj", "v_proj"]
    assert made["fits"] and made["settings"]["steps"] == 4 and made["settings"]["engine"] == "packed"


@pytest.mark.slow
def test_a_folder_with_only_a_config_is_planned_with_and_not_trained(
    home: Path, dataset: Path, tmp_path: Path
) -> None:
    folder = config_folder(tmp_path / "7b", "7b")
    (folder / "model.safetensors").unlink()
    done = plan("--model", str(folder), "--data", str(dataset), "--device", "cpu")
    assert "7.62 billion weights (the config.json of its folder, which has no weights)" in done.stdout
    assert "The dataset was not read: The tokenizer in" in done.stdout
    assert "The model has to be downloaded" in done.stdout
    command = [sys.executable, "-m", "backpropagate", "train", "--model", str(folder), "--data", str(dataset)]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert refused.returncode == 1 and "lacks weights in .safetensors files" in refused.stderr


def test_a_plan_that_does_not_fit_exits_with_1_and_names_what_would(home: Path, tmp_path: Path) -> None:
    folder = config_folder(tmp_path / "70b", "70b")
    done = plan("--model", str(folder), "--device", "cpu")
    assert done.returncode == 1 and done.stdout.startswith("It does not fit: ")
    assert "the smallest settings need at least" in done.stdout
