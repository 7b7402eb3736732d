"""Remembered segments give the tokens that the tokenizer gives for the whole text."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from backpropagate.training.data.segments import Offsets, Segments, can_be_cut
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
KINDS: dict[str, Any] = {
    "gpt2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "llama3": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    ),
    "qwen2": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    ),
    "smollm": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    ),
    "words_with_spaces": pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\w+ \w+|\W"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    ),
}
ADDED = [
    AddedToken("<|im_start|>", special=True),
    AddedToken("<|im_end|>", special=True),
    AddedToken("<tool>"),
]


@cache
def backend(kind: str) -> Any:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC() if kind == "qwen2" else None  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.pre_tokenizer = KINDS[kind]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1500, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(Path(__file__).read_text().splitlines(), trainer)
    tokenizer.add_tokens(ADDED)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


TEXTS = st.lists(
    st.one_of(
        st.sampled_from(
            [" ", "  ", "\n", " \n", "\t", "\u00a0", "'s", "the", " fox", ".", "12", "e\u0301", "\u0301"]
        ),
        st.sampled_from(
            ["<|im_start|>", "<|im_end|>", "<tool>", "<tool", "def f(x):\n    return x", "東京", "🙂", "  a"]
        ),
        st.text(max_size=6),
    ),
    max_size=20,
).map("".join)


@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("kind", ["gpt2", "llama3", "qwen2", "smollm"])
@given(texts=st.lists(TEXTS, min_size=1, max_size=4))
def test_tokens_and_places_are_those_of_the_whole_text(kind: str, texts: list[str]) -> None:
    asked = [sorted({len(text) // 3, len(text) // 2, len(text)}) for text in texts]
    whole, tokenizer = Offsets(backend(kind)), Segments(backend(kind), ADDED)
    for _ in range(2):  # the second time from memory
        assert tokenizer.encode(texts, asked) == whole.encode(texts, asked)


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_tokenizer_is_cut_only_where_the_cuts_are_borders(kind: str) -> None:
    assert can_be_cut(backend(kind), ADDED) == (kind != "words_with_spaces")


def test_other_kinds_of_tokenizers_and_greedy_tokens_are_not_cut(tokenizer_of: Any) -> None:
    assert not can_be_cut(tokenizer_of("llama2").backend_tokenizer, ADDED)
    assert not can_be_cut(backend("gpt2"), [AddedToken("<|end|>", rstrip=True)])
    assert not can_be_cut(backend("gpt2"), [AddedToken("two words")])


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backpropagate.training.data.segments.MOST_REMEMBERED", 10)
    tokenizer, whole = Segments(backend("gpt2"), ADDED), Offsets(backend("gpt2"))
    for number in range(30):
        text = f"a text of some words {number} and {number * 7} more"
        assert tokenizer.encode([text], [[]]) == whole.encode([text], [[]])
    assert len(tokenizer._known) < 40  # pyright: ignore[reportPrivateUsage]
