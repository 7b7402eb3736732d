"""A small vocabulary with published rules."""

from __future__ import annotations

from collections.abc import Callable
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
