"""Published tokenizers, rebuilt from llama.cpp's source archive, by llama.cpp and by its converter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from published_tokenizers import (
    BYTES,
    TEKKEN,
    build_from_gguf,
    build_from_ranks,
    build_from_sentencepiece,
    split,
)
from rarer import rarer, with_rarer

from backpropagate.training.export.gguf.reader import read_metadata
from backpropagate.training.export.verify.tokenizer_parity import compare_tokenizers

Export = Callable[..., Any]
LIMITS = {
    "llama-bpe": ["Unicode 16"],
    "qwen2": ["</s>", "NFC"],
    "qwen35": ["</s>", "NFC"],
    "gpt-2": [],
    "llama-spm": [],
    "phi-3": ["next to </s>"],
    "gemma-4": ["<|tool_response>"],
}
"""What llama.cpp is known to do otherwise, by vocabulary; everything else must agree."""
MADE_BY_ITS_HASH = ["llama-bpe", "qwen2", "gpt-2"]


@pytest.fixture(scope="session")
def published(llama_cpp_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a published tokenizer."""
    root = tmp_path_factory.mktemp("published")

    def build(name: str) -> Path:
        folder = root / name
        if not folder.is_dir():
            build_from_gguf(llama_cpp_source / "models" / f"ggml-vocab-{name}.gguf", folder, name)
        return folder

    return build


@pytest.fixture(scope="session")
def mistral_common() -> Path:
    """Mistral's own tokenizer files, which its package carries."""
    found = find_spec("mistral_common")
    if found is None or found.origin is None:
        pytest.skip("mistral-common is not installed: pip install --no-deps mistral-common")
    return Path(found.origin).parent / "data"


def rows(source: Path, name: str) -> int:
    return len(read_metadata(source / "models" / f"ggml-vocab-{name}.gguf")["tokenizer.ggml.tokens"])


@pytest.mark.parametrize("name", list(LIMITS))
def test_a_published_tokenizer_is_split_alike_in_3000_texts(
    llama_cpp: None, llama_cpp_source: Path, published: Callable[[str], Path], export: Export, name: str
) -> None:
    folder = published(name)
    result = compare_tokenizers(folder, export(folder, rows(llama_cpp_source, name))[1])
    assert result.agrees, (result.text_examples, result.file_examples)
    assert result.texts == 3000
    for limit in result.known:
        assert any(expected in limit.reason for expected in LIMITS[name]), limit


@pytest.mark.parametrize("name", list(LIMITS))
def test_the_rebuilt_tokenizer_gives_the_published_ids(
    llama_cpp_source: Path, published: Callable[[str], Path], name: str
) -> None:
    from tokenizers import Tokenizer

    models = llama_cpp_source / "models"
    texts = (models / f"ggml-vocab-{name}.gguf.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    lines = (models / f"ggml-vocab-{name}.gguf.out").read_text().splitlines()
    tokenizer = Tokenizer.from_file(str(published(name) / "tokenizer.json"))
    compared = 0
    for text, line in zip(texts, lines, strict=False):
        if name == "qwen35" and not unicodedata.is_normalized("NFC", text):
            continue  # Qwen 3.5's vector was made by llama.cpp, which leaves text uncomposed.
        assert tokenizer.encode(text, add_special_tokens=False).ids == [int(id) for id in line.split()], text
        compared += 1
    assert compared >= 40


@pytest.mark.parametrize("name", MADE_BY_ITS_HASH)
def test_the_metadata_are_those_of_llama_cpps_own_converter(
    llama_cpp_source: Path, published: Callable[[str], Path], export: Export, tmp_path: Path, name: str
) -> None:
    for package in ("torch", "transformers", "sentencepiece"):
        if find_spec(package) is None:
            pytest.skip(f"llama.cpp's converter needs {package}")
    folder, size = published(name), rows(llama_cpp_source, name)
    _write_config(folder, size)
    path = os.pathsep.join([str(llama_cpp_source / "gguf-py"), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [
            *(sys.executable, str(llama_cpp_source / "convert_hf_to_gguf.py"), str(folder)),
            *("--vocab-only", "--outfile", str(tmp_path / "theirs.gguf")),
        ],
        check=True,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    theirs = _tokenizer_part(tmp_path / "theirs.gguf")
    ours = _tokenizer_part(export(folder, size)[1])
    said_by_default = {"add_bos_token": False, "add_eos_token": False, "add_space_prefix": False}
    assert ours == {f"tokenizer.ggml.{key}": value for key, value in said_by_default.items()} | theirs


def _tokenizer_part(path: Path) -> dict[str, Any]:
    return {key: value for key, value in read_metadata(path).items() if key.startswith("tokenizer.")}


def _write_config(folder: Path, size: int) -> None:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": size,
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 512,
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


@pytest.mark.parametrize(
    "name", with_rarer(["tokenizer.model.v1"], ["mistral_instruct_tokenizer_240323.model.v3"])
)
@pytest.mark.parametrize(
    "beside", [rarer(True, id="with tokenizer.model"), pytest.param(False, id="from tokenizer.json alone")]
)
def test_mistrals_sentencepiece_models_are_split_alike(
    llama_cpp: None, mistral_common: Path, export: Export, tmp_path: Path, name: str, beside: bool
) -> None:
    folder = build_from_sentencepiece(mistral_common / name, tmp_path / "mistral")
    if not beside:
        (folder / "tokenizer.model").unlink()
    result = compare_tokenizers(folder, export(folder, 32768)[1])
    assert result.agrees and not result.known, result.text_examples


@pytest.mark.nightly
@pytest.mark.slow
def test_tekken_is_split_alike_but_for_case_and_marks_beyond_ascii(
    llama_cpp: None, mistral_common: Path, export: Export, tmp_path: Path
) -> None:
    import base64

    content = json.loads((mistral_common / "tekken_240718.json").read_text(encoding="utf-8"))
    special = ["<unk>", "<s>", "</s>", *(f"<SPECIAL_{id}>" for id in range(3, 1000))]
    vocab = sorted(content["vocab"], key=lambda token: token["rank"])[: 131_072 - len(special)]
    ranks = [base64.b64decode(token["token_bytes"]) for token in vocab]
    rules = [split(TEKKEN), BYTES]
    folder = build_from_ranks(ranks, tmp_path / "tekken", special, rules, special_first=True)
    tokenizer, path = export(folder, 131_072)
    result = compare_tokenizers(folder, path)
    assert tokenizer.pre == "tekken" and result.agrees, result.text_examples
    assert [("case" in limit.reason or "Unicode 16" in limit.reason) for limit in result.known]
