"""Tokens, their roles and templates are those that Transformers finds, in whichever file they stand."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_lora import change_json
from transformers import AutoTokenizer

from backpropagate.training.errors import GgufExportError
from backpropagate.training.export.gguf.export import general_name
from backpropagate.training.export.merged.safetensors import copy_tokenizer
from backpropagate.training.export.tokenizer.gguf_tokenizer import GgufTokenizer, gguf_tokenizer
from backpropagate.training.export.tokenizer.token_types import TokenType

ROWS = 264
NEW = ["<|extra|>", "<|tool|>"]  # 258 and 259


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def token(content: str, **flags: bool) -> dict[str, Any]:
    usual = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False, "special": True}
    return {"content": content, **usual, **flags}


def in_decoder(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    decoder = json.loads(path.read_text("utf-8")).get("added_tokens_decoder", {})
    change_json(path, added_tokens_decoder={**decoder, "258": token(NEW[0]), "259": token(NEW[1])})


def in_config(**entries: Any) -> Callable[[Path], None]:
    return lambda folder: change_json(folder / "tokenizer_config.json", **entries)


def in_a_file(name: str, content: Any) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_text(json.dumps(content), "utf-8")

    return write


@pytest.mark.parametrize(
    "name_them",
    [
        in_decoder,
        in_config(extra_special_tokens=NEW),
        in_config(extra_special_tokens={"extra_token": NEW[0], "tool_token": NEW[1]}),
        in_config(additional_special_tokens=NEW),
        in_config(eos_token=NEW[0]),
        in_config(image_token=NEW[1]),
        in_a_file("added_tokens.json", {NEW[0]: 258, NEW[1]: 259}),
        in_a_file("special_tokens_map.json", {"eos_token": NEW[0], "additional_special_tokens": [NEW[1]]}),
    ],
)
def test_tokens_that_other_files_name_have_the_ids_that_transformers_gives(
    name_them: Callable[[Path], None], folder: Path
) -> None:
    name_them(folder)
    theirs: Any = AutoTokenizer.from_pretrained(folder)
    ours = gguf_tokenizer(folder, ROWS)
    added = {text: id for text, id in theirs.get_added_vocab().items() if text in NEW}
    assert added and {text: ours.tokens[id] for text, id in added.items()} == {text: text for text in added}
    assert ours.special_ids["eos"] == theirs.eos_token_id


def test_a_flag_that_another_file_changes_is_transformers_flag(folder: Path) -> None:
    change_json(
        folder / "tokenizer_config.json", added_tokens_decoder={"1": token("<|im_end|>", special=False)}
    )
    theirs: Any = AutoTokenizer.from_pretrained(folder)
    assert gguf_tokenizer(folder, ROWS).token_types[1] == TokenType.CONTROL
    assert theirs.added_tokens_decoder[1].content == "<|im_end|>"


@pytest.mark.parametrize("nonsense", [{"x": 3}, ["a"], "text"])
def test_files_that_transformers_cannot_read_are_named(nonsense: Any, folder: Path) -> None:
    change_json(folder / "tokenizer_config.json", added_tokens_decoder=nonsense)
    with pytest.raises(GgufExportError, match="names tokens that tokenizer"):
        gguf_tokenizer(folder, ROWS)


def test_the_models_own_end_tokens_end_an_answer(folder: Path) -> None:
    change_json(folder / "config.json", eos_token_id=[1, 0])
    (folder / "generation_config.json").unlink(missing_ok=True)
    assert gguf_tokenizer(folder, ROWS).stop_tokens == ("<|im_end|>", "<|im_start|>")
    (folder / "generation_config.json").write_text('{"eos_token_id": 1}', "utf-8")
    assert gguf_tokenizer(folder, ROWS).stop_tokens == ("<|im_end|>",)


def test_additional_templates_are_found_and_copied(folder: Path, tmp_path: Path) -> None:
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("{{ tools }}", "utf-8")

    def templates(source: Path) -> GgufTokenizer:
        return gguf_tokenizer(source, ROWS)

    assert templates(folder).chat_templates.keys() == {"default", "tool_use"}
    copy = tmp_path / "copy"
    copy.mkdir()
    copy_tokenizer(folder, None, copy)
    assert templates(copy).chat_templates == templates(folder).chat_templates
    theirs: Any = AutoTokenizer.from_pretrained(copy)
    assert theirs.chat_template == templates(copy).chat_templates


@pytest.mark.parametrize("name", ["my-Phi-3-tune", "phi3", "modern-bert-x"])
def test_a_folders_name_gives_a_model_no_rules(name: str) -> None:
    written = general_name(name, None).lower()
    assert not any(part in written for part in ("phi-3", "phi3", "modern-bert"))
    assert "phi-3" in general_name(name, "phi-3")
    assert general_name("smollm2-135m-a7f3", None) == "smollm2-135m-a7f3"
