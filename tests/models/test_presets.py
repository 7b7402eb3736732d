"""What kind of name a model name is, decided without heavy libraries or a network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from backpropagate.training.errors import InputError
from backpropagate.training.models.model_folder import missing_from
from backpropagate.training.models.presets import HUB_ID_LENGTH, PRESETS, classify_model

INSTRUCT_BY_ANOTHER_NAME = {"Qwen/Qwen3-0.6B", "Qwen/Qwen3-1.7B", "HuggingFaceTB/SmolLM3-3B"}
"""Their base models are the ones with a suffix."""


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").touch()
    return folder


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_stands_for_an_instruct_model_of_the_hub(name: str) -> None:
    source = classify_model(name)
    assert source == ("preset", PRESETS[name].hub_id)
    assert "instruct" in source.location.lower() or source.location.startswith(
        ("Qwen/Qwen3", "HuggingFaceTB/SmolLM3", "google/gemma", "openai/gpt-oss")
    )
    assert not source.location.startswith("google/") or source.location.endswith("-it")
    assert classify_model(source.location).kind == "hub"


def test_a_preset_is_found_in_any_case() -> None:
    assert classify_model("Qwen2.5-7B").location == PRESETS["qwen2.5-7b"].hub_id


def test_there_are_presets_of_open_models_for_small_machines() -> None:
    small = {name for name, preset in PRESETS.items() if 0.1 < preset.billions < 3.2}
    assert {"smollm2-135m", "qwen3-0.6b", "qwen3-1.7b", "smollm3-3b"} <= small


def test_a_folder_is_known_by_its_absolute_path(model_folder: Path) -> None:
    assert classify_model(str(model_folder)) == ("folder", str(model_folder))


def test_a_relative_folder_becomes_absolute(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model_folder.parent)
    assert classify_model("model") == ("folder", str(model_folder))
    assert classify_model("./model") == ("folder", str(model_folder.parent / "model"))


def test_a_folder_that_lacks_something_is_refused_with_what_it_lacks(model_folder: Path) -> None:
    (model_folder / "model.safetensors").rename(model_folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"lacks weights in \.safetensors"):
        classify_model(str(model_folder))
    (model_folder / "config.json").rename(model_folder / "adapter_config.json")
    with pytest.raises(InputError, match=r"lacks config\.json: it contains a LoRA adapter"):
        classify_model(str(model_folder))
    with pytest.raises(InputError, match="nowhere does not exist"):
        classify_model(str(model_folder / "nowhere"))
    with pytest.raises(InputError, match="is not a folder"):
        classify_model(str(model_folder / "adapter_config.json"))


def test_a_folder_with_a_missing_shard_is_not_complete(model_folder: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (model_folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert missing_from(model_folder) == "model-00002-of-00002.safetensors"
    (model_folder / "model-00002-of-00002.safetensors").touch()
    assert missing_from(model_folder) is None
    (model_folder / "model.safetensors.index.json").write_text("{")
    assert missing_from(model_folder) == "a readable model.safetensors.index.json"


def test_an_unknown_name_names_the_nearest_preset() -> None:
    with pytest.raises(InputError, match="is not a model name") as caught:
        classify_model("qwen2.5-7bb")
    assert (caught.value.hint or "").startswith("Did you mean qwen2.5-7b? ")


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            "gpt2",
            "-x/model",
            "org/",
            "/",
            "a/b/c",
            "org/na me",
            "org/a..b",
            "org/a--b",
            "org/a.",
            "o\0/x",
        ),
        *("o\0/x", "~nobody-here/x", "C:\\models\\x", f"o/{'x' * HUB_ID_LENGTH}"),
    ],
)
def test_what_is_neither_is_refused(name: str) -> None:
    with pytest.raises(InputError):
        classify_model(name)


def test_the_check_imports_nothing_heavy() -> None:
    code = (
        "import sys; import backpropagate.training.models.presets;"
        "assert not {'torch', 'transformers', 'huggingface_hub', 'gguf', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
