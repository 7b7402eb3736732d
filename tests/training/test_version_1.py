"""The programs in version 1's documentation, as they are written.

The big model's name means a small one in the Hub's cache, the Hub's dataset a local folder of its name, and
Ollama a stand-in.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ollama_stand_in import OllamaStandIn

import backpropagate
from backpropagate import Trainer
from backpropagate.training.errors import MissingExtraError

pytestmark = pytest.mark.slow
ROOT = Path(backpropagate.__file__).parent
COMMIT = "a" * 40

QUICK_START = """
from backpropagate import Trainer

trainer = Trainer("Qwen/Qwen2.5-7B-Instruct")
trainer.train("examples/quickstart.jsonl", steps=10)
"""
OWN_DATA = """
from backpropagate import Trainer

trainer = Trainer("Qwen/Qwen2.5-7B-Instruct")
trainer.train("my_data.jsonl", steps=100)
trainer.save("./my-model")
"""
SEVERAL_RUNS = """
from backpropagate import Trainer

trainer = Trainer("Qwen/Qwen2.5-7B-Instruct")

result = trainer.multi_run(
    dataset="HuggingFaceH4/ultrachat_200k",
    num_runs=5,
    steps_per_run=100,
    samples_per_run=1000,
    merge_mode="slao",
)
"""
TO_GGUF = """
result = trainer.export("gguf", quantization="q4_k_m")
"""
TO_OLLAMA = """
from backpropagate import register_with_ollama
register_with_ollama(result.path, "my-finetuned-model")
"""


@pytest.fixture
def program(
    home: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, Any]]:
    """Executes one in a folder of its own; its names are the result."""
    repository = tmp_path / "hub" / "models--Qwen--Qwen2.5-7B-Instruct"
    shutil.copytree(tiny_model, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "examples").symlink_to(ROOT / "examples", target_is_directory=True)
    monkeypatch.chdir(tmp_path)

    def execute(*parts: str, **names: Any) -> dict[str, Any]:
        for part in parts:
            exec(compile(part, "README.md", "exec"), names)
        return names

    return execute


def test_three_lines_train_and_the_fourth_exports_or_names_what_is_missing(
    program: Callable[..., dict[str, Any]],
) -> None:
    names = program(QUICK_START)
    assert isinstance(names["trainer"], Trainer)
    if importlib.util.find_spec("llama_cpp"):
        assert program(TO_GGUF, **names)["result"].path.suffix == ".gguf"
        return
    with pytest.raises(MissingExtraError, match="q4_k_m") as refused:
        program(TO_GGUF, **names)
    assert "export" in (refused.value.hint or "")


def test_own_data_are_trained_saved_and_given_to_ollama(
    program: Callable[..., dict[str, Any]], dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset.rename(tmp_path / "my_data.jsonl")
    names = program(OWN_DATA)
    assert (tmp_path / "my-model" / "adapter_config.json").is_file()
    with OllamaStandIn(tmp_path, "0.34.1") as ollama:
        monkeypatch.setenv("OLLAMA_HOST", ollama.host)
        program(TO_GGUF.replace("q4_k_m", "q8_0"), TO_OLLAMA, **names)
        assert any("my-finetuned-model" in name for name in ollama.models)


@pytest.mark.nightly
def test_several_runs_of_a_dataset_of_the_hub_are_merged(
    program: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    folder = tmp_path / "HuggingFaceH4" / "ultrachat_200k"
    folder.mkdir(parents=True)
    turns = [
        [
            {"role": "user", "content": f"What is number {number}?"},
            {"role": "assistant", "content": f"It is the {number}th."},
        ]
        for number in range(160)
    ]
    rows = "".join(json.dumps({"prompt_id": str(n), "messages": row}) + "\n" for n, row in enumerate(turns))
    (folder / "train_sft.jsonl").write_text(rows)
    shorter = SEVERAL_RUNS
    for long, short in {
        "steps_per_run=100": "steps_per_run=2",
        "=1000": "=20",
        "num_runs=5": "num_runs=2",
    }.items():
        shorter = shorter.replace(long, short)
    result = program(shorter)["result"]
    assert result.run_id and len(result.ledger.runs) == 2
