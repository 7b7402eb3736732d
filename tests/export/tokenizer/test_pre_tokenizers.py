"""How a tokenizer's rules become llama.cpp's name for them, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from published_tokenizers import (
    BYTES,
    DIGITS,
    ESCAPE,
    GPT_4O,
    HUNYUAN,
    LLAMA_3,
    PREPEND,
    QWEN_2,
    QWEN_3_5,
    TEKKEN,
    WORDS,
    split,
)

from backpropagate.training.errors import GgufExportError
from backpropagate.training.export.tokenizer.folder import TokenizerFolder
from backpropagate.training.export.tokenizer.pre_tokenizers import pre_tokenizer_name
from backpropagate.training.export.tokenizer.rules import read_rules

NFC = {"type": "NFC"}
COMMAND_R = {"normalizers": [NFC], "pre_tokenizers": [DIGITS, WORDS], "ignore_merges": False}
SmallTokenizer = Callable[..., Path]


def name(folder: Path) -> str:
    return pre_tokenizer_name(read_rules(TokenizerFolder(folder)))


@pytest.mark.parametrize(
    ("expected", "settings"),
    [
        ("llama-bpe", {"pre_tokenizers": [split(LLAMA_3), BYTES], "ignore_merges": True}),
        ("dbrx", {"pre_tokenizers": [split(LLAMA_3), BYTES], "ignore_merges": False}),
        ("qwen2", {"normalizers": [NFC], "pre_tokenizers": [split(QWEN_2), BYTES], "ignore_merges": False}),
        ("deepseek-r1-qwen", {"pre_tokenizers": [split(QWEN_2), BYTES], "ignore_merges": False}),
        (
            "qwen35",
            {"normalizers": [NFC], "pre_tokenizers": [split(QWEN_3_5), BYTES], "ignore_merges": False},
        ),
        ("smollm", {"pre_tokenizers": [DIGITS, WORDS], "ignore_merges": False}),
        ("gpt-2", {"pre_tokenizers": [WORDS], "ignore_merges": False}),
        ("command-r", COMMAND_R),
        ("exaone4", {"normalizers": [NFC], "pre_tokenizers": [WORDS], "ignore_merges": False}),
        ("hunyuan-dense", {"pre_tokenizers": [*map(split, HUNYUAN), BYTES], "ignore_merges": False}),
        ("tekken", {"pre_tokenizers": [split(TEKKEN), BYTES], "ignore_merges": False}),
        ("tekken", {"pre_tokenizers": [split(TEKKEN), BYTES], "ignore_merges": True}),
        ("gpt-4o", {"pre_tokenizers": [split(GPT_4O), BYTES], "ignore_merges": False}),
        ("llama4", {"pre_tokenizers": [split(GPT_4O), BYTES], "ignore_merges": True}),
    ],
)
def test_a_tokenizer_is_known_by_its_rules(
    small_tokenizer: SmallTokenizer, expected: str, settings: dict[str, Any]
) -> None:
    assert name(small_tokenizer(**settings)) == expected


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"pre_tokenizers": [split(LLAMA_3.replace("{1,3}", "{1,4}")), BYTES]}, "{1,4}"),
        ({"pre_tokenizers": [DIGITS | {"individual_digits": False}, WORDS]}, '"individual_digits": false'),
        ({"pre_tokenizers": [DIGITS, WORDS | {"add_prefix_space": True}]}, '"add_prefix_space": true'),
        ({"pre_tokenizers": [split(LLAMA_3) | {"behavior": "MergedWithNext"}, BYTES]}, "MergedWithNext"),
        ({"pre_tokenizers": [split(LLAMA_3), WORDS]}, '"use_regex": true'),
        ({"normalizers": [{"type": "NFKC"}]}, "NFKC"),
        ({"normalizers": [{"type": "Lowercase"}, NFC]}, "Lowercase"),
        ({"pre_tokenizers": [DIGITS, WORDS], "ignore_merges": True}, "ignore_merges is true where smollm"),
        ({"normalizers": [PREPEND, ESCAPE], "pre_tokenizers": []}, "Prepend"),
    ],
)
def test_rules_that_are_not_known_to_the_letter_are_refused_by_name(
    small_tokenizer: SmallTokenizer, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(GgufExportError) as refused:
        name(small_tokenizer(**settings))
    assert said in str(refused.value.untrusted) and refused.value.hint


def test_neither_added_tokens_nor_another_vocabulary_change_the_name(
    small_tokenizer: SmallTokenizer, small_vocab: dict[str, int]
) -> None:
    more = {400: ("<tool>", False), 401: ("[MASK]", True)}
    assert name(small_tokenizer(added=more)) == "llama-bpe"
    longer = small_vocab | {"hellohello": len(small_vocab)}
    assert name(small_tokenizer(vocab=longer, merges=["h e", ["hello", "hello"]][:1])) == "llama-bpe"


def test_the_order_of_keys_and_the_version_that_wrote_the_file_do_not_matter(
    small_tokenizer: SmallTokenizer,
) -> None:
    folder = small_tokenizer(pre_tokenizers=[DIGITS, WORDS], ignore_merges=False)
    settings = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    # As tokenizers 0.13 wrote it: no use_regex, no ignore_merges. A sequence may hold another.
    old = {"add_prefix_space": False, "trim_offsets": False, "type": "ByteLevel"}
    settings["pre_tokenizer"] = {
        "pretokenizers": [DIGITS, {"type": "Sequence", "pretokenizers": [old]}],
        "type": "Sequence",
    }
    settings["normalizer"] = {"normalizers": [], "type": "Sequence"}
    del settings["model"]["ignore_merges"]
    text = json.dumps(dict(reversed(settings.items())), indent=2)
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    assert name(folder) == "smollm"


def test_removing_what_does_not_match_is_keeping_what_matches(small_tokenizer: SmallTokenizer) -> None:
    removing = split(LLAMA_3) | {"behavior": "Removed", "invert": True}
    assert name(small_tokenizer(pre_tokenizers=[removing, BYTES])) == "llama-bpe"


@pytest.mark.parametrize("setting", ["continuing_subword_prefix", "end_of_word_suffix"])
def test_marks_on_parts_of_words_are_refused(small_tokenizer: SmallTokenizer, setting: str) -> None:
    folder = small_tokenizer(merges=[])
    settings = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    settings["model"][setting] = "##"
    (folder / "tokenizer.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(GgufExportError, match=setting):
        name(folder)


def test_a_tokenizer_that_is_no_byte_pair_encoding_is_refused(small_tokenizer: SmallTokenizer) -> None:
    folder = small_tokenizer()
    settings = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    settings["model"] = {"type": "WordPiece", "unk_token": "!", "vocab": {"!": 0}}
    settings["model"] |= {"continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
    (folder / "tokenizer.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(GgufExportError, match="WordPiece"):
        name(folder)
