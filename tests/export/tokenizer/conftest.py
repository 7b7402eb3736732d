"""A small vocabulary with published rules, and the published vocabularies in llama.cpp's source."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from published_tokenizers import BYTES, LLAMA_3, split, write_folder

from backpropagate.training.export.tokenizer.gguf_tokenizer import GgufTokenizer, gguf_tokenizer

MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "l d", "Ġwor ld", "1 2", "Ġ Ġ"]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


@pytest.fixture(scope="session")
def small_vocab() -> dict[str, int]:
    """The byte alphabet and what `MERGES` make of it."""
    from tokenizers import pre_tokenizers

    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in MERGES)]
    return {token: id for id, token in enumerate(tokens)}


@pytest.fixture
def small_tokenizer(tmp_path: Path, small_vocab: dict[str, int]) -> Callable[..., Path]:
    """Write a byte-level tokenizer, Llama 3's in its rules unless said otherwise."""

    def write(name: str = "tokenizer", **settings: Any) -> Path:
        first = len(small_vocab)
        usual = {
            "vocab": small_vocab,
            "merges": MERGES,
            "added": {first + place: (token, True) for place, token in enumerate(SPECIAL)},
            "special": {"bos": "<|im_start|>", "eos": "<|im_end|>", "pad": "<|endoftext|>"},
            "pre_tokenizers": [split(LLAMA_3), BYTES],
            "ignore_merges": True,
        }
        return write_folder(tmp_path / name, **(usual | settings))

    return write


@pytest.fixture
def export(tmp_path: Path) -> Callable[..., tuple[GgufTokenizer, Path]]:
    """Write the tokenizer of a folder as a GGUF file without tensors."""

    def write(folder: Path, rows: int, name: str | None = None) -> tuple[GgufTokenizer, Path]:
        from gguf import GGUFWriter

        tokenizer, path = gguf_tokenizer(folder, rows), tmp_path / "vocabulary.gguf"
        writer = GGUFWriter(path, "llama")
        writer.add_name(name or tokenizer.name_part or "test")
        tokenizer.write(writer)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return tokenizer, path

    return write


@pytest.fixture(scope="session")
def llama_cpp() -> None:
    """Skip where llama.cpp is not installed."""
    if find_spec("llama_cpp") is None:
        pytest.skip('llama.cpp is not installed: pip install "backpropagate-mcp[export]"')


@pytest.fixture(scope="session")
def llama_cpp_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """llama.cpp's source, from the archive that LLAMA_CPP_SDIST names."""
    archive = os.environ.get("LLAMA_CPP_SDIST")
    if not archive:
        pytest.skip(
            "LLAMA_CPP_SDIST does not name llama_cpp_python-*.tar.gz (pip download --no-binary :all:)"
        )
    folder = tmp_path_factory.mktemp("llama-cpp")
    with tarfile.open(archive) as files:
        wanted = [member for member in files if _is_wanted(member.name)]
        files.extractall(folder, wanted, filter="data")
    return next(folder.glob("*/vendor/llama.cpp"))


def _is_wanted(name: str) -> bool:
    _, _, path = name.partition("/vendor/llama.cpp/")
    return path.startswith(("models/ggml-vocab-", "gguf-py/gguf/", "conversion/", "convert_hf_to_gguf.py"))
