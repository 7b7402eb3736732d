"""Does llama.cpp split text as the tokenizer does, and would the check notice if it did not?"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from published_tokenizers import BYTES, DIGITS, HUNYUAN, QWEN_2, WORDS, split

from backpropagate.training.errors import GgufExportError
from backpropagate.training.export.gguf.reader import read_metadata
from backpropagate.training.export.verify import tokenizer_parity
from backpropagate.training.export.verify.tokenizer_parity import compare_tokenizers
from backpropagate.training.export.verify.tokenizer_probes import probe_texts

Export = Callable[..., Any]


@pytest.fixture
def without_llama_cpp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_parity, "llama_cpp_is_installed", lambda: False)


def test_tricky_texts_are_the_same_for_the_same_seed_and_all_different() -> None:
    texts = probe_texts(3000, tokens=["<|im_end|>"])
    assert texts == probe_texts(3000, tokens=["<|im_end|>"]) != probe_texts(3000, seed=1)
    assert len(set(texts)) == 3000 and all(texts)
    assert all(text.encode("utf-8") for text in texts)


def test_without_llama_cpp_the_files_are_compared_and_the_result_says_so(
    small_tokenizer: Callable[..., Path], export: Export, without_llama_cpp: None
) -> None:
    folder = small_tokenizer()
    result = compare_tokenizers(folder, export(folder, 300)[1])
    assert result.agrees and result.tokens == 300 and result.texts == 0
    assert "no text was tokenised" in result.checked


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"merges": ["h e", "l l"]}, "Merge 2 is 'he ll' in the file and None"),
        ({"merges": ["l l", "h e", "he ll"]}, "Merge 0 is 'h e' in the file"),
        ({"added": {}, "special": {}}, "is '<|endoftext|>' in the file and '[PAD"),
        ({"special": {"eos": "<|endoftext|>"}}, "The eos token is"),
    ],
)
def test_a_file_of_another_tokenizer_is_noticed_without_llama_cpp(
    small_tokenizer: Callable[..., Path],
    export: Export,
    without_llama_cpp: None,
    settings: dict[str, Any],
    said: str,
) -> None:
    _, path = export(small_tokenizer(), 300)
    result = compare_tokenizers(small_tokenizer("other", **settings), path)
    assert not result.agrees and result.in_files
    assert any(said in example for example in result.file_examples)


def test_the_real_smollm2_is_split_alike_in_3000_texts(
    smollm2: Path, export: Export, llama_cpp: None
) -> None:
    result = compare_tokenizers(smollm2, export(smollm2, 49152)[1])
    assert result.agrees, result.text_examples
    assert result.texts == 3000 and ["21 bytes" in limit.reason for limit in result.known] == [True]


def test_a_wrong_pre_tokenizer_is_noticed_by_llama_cpp(
    small_tokenizer: Callable[..., Path], export: Export, llama_cpp: None
) -> None:
    folder = small_tokenizer()
    qwen = small_tokenizer("qwen", pre_tokenizers=[split(QWEN_2), BYTES], ignore_merges=False)
    result = compare_tokenizers(folder, export(qwen, 300)[1])
    assert result.in_texts and not result.in_files
    assert any("12" in example.text for example in result.text_examples)


def test_text_that_is_not_composed_is_reported_as_a_limit_and_no_other(
    small_tokenizer: Callable[..., Path], export: Export, llama_cpp: None
) -> None:
    settings = {"pre_tokenizers": [split(QWEN_2), BYTES], "ignore_merges": False}
    folder = small_tokenizer(normalizers=[{"type": "NFC"}], **settings)
    result = compare_tokenizers(folder, export(folder, 300)[1])
    assert result.agrees and [limit.texts > 0 for limit in result.known] == [True]
    assert "NFC" in result.known[0].reason


def test_added_tokens_are_found_as_the_tokenizer_finds_them(
    small_tokenizer: Callable[..., Path], export: Export, llama_cpp: None, small_vocab: dict[str, int]
) -> None:
    first = len(small_vocab)
    names = [("<|im_end|>", True), ("<tool>", False), ("</tool>", False), ("<|shown|>", False), ("  ", False)]
    added = {first + place: token for place, token in enumerate(names)}
    folder = small_tokenizer(added=added, special={"eos": "<|im_end|>"})
    result = compare_tokenizers(folder, export(folder, 300)[1])
    assert result.agrees, result.text_examples


def test_a_file_that_llama_cpp_cannot_load_is_an_error(
    small_tokenizer: Callable[..., Path], export: Export, llama_cpp: None
) -> None:
    folder = small_tokenizer()
    _, path = export(folder, 300)
    path.write_bytes(path.read_bytes().replace(b"llama-bpe", b"llama-bpf"))
    with pytest.raises(GgufExportError, match=r"llama\.cpp could not tokenise"):
        compare_tokenizers(folder, path)


@pytest.mark.parametrize(
    "settings",
    [
        {"normalizers": [{"type": "NFC"}], "pre_tokenizers": [DIGITS, WORDS]},
        {"normalizers": [{"type": "NFC"}], "pre_tokenizers": [WORDS]},
        {"pre_tokenizers": [*map(split, HUNYUAN), BYTES]},
    ],
    ids=["command-r", "exaone4", "hunyuan-dense"],
)
def test_the_rules_of_a_family_split_alike_in_llama_cpp(
    small_tokenizer: Callable[..., Path], export: Export, llama_cpp: None, settings: dict[str, Any]
) -> None:
    folder = small_tokenizer(ignore_merges=False, **settings)
    assert compare_tokenizers(folder, export(folder, 300)[1], texts=1000).agrees


@pytest.mark.parametrize("size", [0, 3, 30, 900])
def test_a_cut_file_is_an_error(small_tokenizer: Callable[..., Path], export: Export, size: int) -> None:
    _, path = export(small_tokenizer(), 300)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(GgufExportError, match="cannot be read as a GGUF file"):
        read_metadata(path)


def test_a_model_without_merges_can_be_written_and_read(
    small_tokenizer: Callable[..., Path], export: Export
) -> None:
    folder = small_tokenizer(merges=[])
    result = compare_tokenizers(folder, export(folder, 300)[1], texts=500)
    assert result.agrees
    assert result.texts == (500 if importlib.util.find_spec("llama_cpp") else 0)
    assert replace(result, in_texts=1).agrees is False
