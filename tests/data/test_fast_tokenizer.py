"""The fast tokenizer gives the model's own tokens and offsets, or leaves a text to the model's own."""

from __future__ import annotations

import json
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from backpropagate.training.config.specs import DataGroup
from backpropagate.training.data.prepare import prepare
from backpropagate.training.data.tokens.fast_tokenizer import SAMPLES, FastTokenizer, fast_tokenizer
from backpropagate.training.data.tokens.token_offsets import ModelTokenizer

QWEN = "|".join(
    [
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        r"\p{N}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)
LLAMA = QWEN.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)
DIGITS = pre_tokenizers.Digits(individual_digits=True)


def splitting(pattern: str) -> Any:
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )


KINDS: dict[str, tuple[Any, Any]] = {
    "gpt2": (None, pre_tokenizers.ByteLevel(False)),
    "smollm": (None, pre_tokenizers.Sequence([DIGITS, pre_tokenizers.ByteLevel(False)])),
    "llama3": (None, splitting(LLAMA)),
    "qwen": (normalizers.NFC(), splitting(QWEN)),
}


@cache
def backend(kind: str) -> Tokenizer:
    """Byte-level BPE that splits words as a model family does."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer, tokenizer.pre_tokenizer = KINDS[kind]
    trainer = trainers.BpeTrainer(
        vocab_size=1500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([*SAMPLES, Path(__file__).read_text(encoding="utf-8")] * 3, trainer)
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False) for token in ("<|im_start|>", "<|im_end|>")]
    )
    tokenizer.add_special_tokens([AddedToken("<|swallows|>", normalized=False, rstrip=True)])
    tokenizer.add_tokens(["<think>"])
    return tokenizer


@cache
def fast(kind: str) -> FastTokenizer:
    made = fast_tokenizer(backend(kind))
    assert made is not None
    return made


WORDS = [
    *SAMPLES, "'s", "'S", "'ll", "'\u017f", "\u180e", "\u017f", "\r\n", "\t", "  ", "<|im_end|>",
    "<|im_start|>", "<think>", "<|swallows|> ", "<|im", "don't", "123", "é", "e\u0301", "हि", "\u200d",
    "\x85", "\u2003",
]  # fmt: skip
TEXTS = st.lists(
    st.one_of(
        st.sampled_from(WORDS), st.text(max_size=8), st.text(st.characters(max_codepoint=0x250), max_size=8)
    ),
    max_size=10,
).map("".join)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=80)
@given(texts=st.lists(TEXTS, min_size=1, max_size=6), data=st.data())
def test_tokens_and_offsets_are_those_of_the_models_own_tokenizer(
    kind: str, texts: list[str], data: Any
) -> None:
    offsets = [data.draw(st.lists(st.integers(0, len(text)), max_size=4)) for text in texts]
    own = ModelTokenizer(backend(kind)).tokenise(texts, offsets)
    for text, asked, expected, found in zip(
        texts, offsets, own, fast(kind).tokenise(texts, offsets), strict=True
    ):
        if found is not None:
            assert found.ids.tolist() == expected.ids.tolist(), text
            assert found.token_offsets == expected.token_offsets, (text, asked)


@pytest.mark.parametrize("kind", KINDS)
def test_ordinary_texts_are_not_left_to_the_slow_one(kind: str) -> None:
    texts = ["The quick brown fox.<|im_end|>\n", "naïve café — 東京 🙂", "def f(x):\n    return x"]
    assert None not in fast(kind).tokenise(texts, [[]] * 3)


def test_texts_that_the_tokens_do_not_spell_are_left_to_the_slow_one() -> None:
    texts = ["plain", "e\u0301", "<|swallows|>  x", "'\u017f", ""]
    found = fast("qwen").tokenise(texts, [[0]] * 5)
    assert [one is None for one in found] == [False, True, True, True, True]


def test_a_vocabulary_that_is_not_of_bytes_has_no_fast_tokenizer(tokenizer_of: Any) -> None:
    assert fast_tokenizer(tokenizer_of("llama2").backend_tokenizer) is None


def test_a_large_file_gives_the_same_examples_with_it_and_without(
    tokenizer_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"{sample} {number}"},
                {"role": "assistant", "content": sample},
            ]
        }
        for number in range(60)
        for sample in SAMPLES
        if sample.strip()
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    data = DataGroup(source=str(path), order="as_given")
    slow = prepare(data, tokenizer_of("chatml"), cache=tmp_path / "slow")
    ready = fast_tokenizer(tokenizer_of("chatml").backend_tokenizer)
    encode = import_module(
        "backpropagate.training.data.tokens.encode"
    )  # the package's name for it is a function
    monkeypatch.setattr(encode, "FAST_FROM_CHARACTERS", 0)
    monkeypatch.setattr(encode, "fast_tokenizer", lambda _: ready)
    quick = prepare(data, tokenizer_of("chatml"), cache=tmp_path / "quick")
    assert list(quick.train) == list(slow.train) and quick.summary == slow.summary
