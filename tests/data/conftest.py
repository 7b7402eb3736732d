"""Small tokenizers with the chat templates of the main model families."""

# ruff: noqa: RUF001 - DeepSeek writes its control tokens with wide bars

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

TEMPLATES = Path(__file__).parent / "templates"
CORPUS = (
    Path(__file__).read_text()
    + "The quick brown fox answers: it is 42, naïve café — 東京 🙂. What is it?\n" * 20
)

CHATML = ["<|im_start|>", "<|im_end|>"]
LLAMA3 = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>"]
MISTRAL = ["[INST]", "[/INST]"]
MISTRAL_TOOLS = [
    "[TOOL_CALLS]",
    *(f"[{end}{name}]" for name in ("AVAILABLE_TOOLS", "TOOL_RESULTS") for end in ("", "/")),
]
DEEPSEEK = ["<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>", "<think>", "</think>"]
DEEPSEEK_TOOLS = [f"<｜tool▁{part}｜>" for part in ("call▁begin", "call▁end", "output▁begin", "output▁end")]
FAMILIES: dict[str, tuple[list[str], str, str]] = {
    # special tokens, kind of tokenizer, end-of-turn token
    "chatml": (CHATML, "byte_level", "<|im_end|>"),
    "qwen25": (CHATML, "byte_level", "<|im_end|>"),
    "qwen3": ([*CHATML, "<think>", "</think>", "<tool_call>", "</tool_call>"], "byte_level", "<|im_end|>"),
    "smollm2": (CHATML, "byte_level", "<|im_end|>"),
    "llama3": (LLAMA3, "byte_level", "<|eot_id|>"),
    "llama2": ([], "metaspace", "</s>"),
    "mistral1": (MISTRAL, "metaspace", "</s>"),
    "mistral3": (MISTRAL + MISTRAL_TOOLS, "metaspace", "</s>"),
    "gemma": (["<start_of_turn>", "<end_of_turn>"], "metaspace", "<end_of_turn>"),
    "phi3": (["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"], "swallowing", "<|end|>"),
    "zephyr": ([], "metaspace", "</s>"),
    "deepseek_r1": (DEEPSEEK + DEEPSEEK_TOOLS, "byte_level", "<｜end▁of▁sentence｜>"),
}


@cache
def trained_backend(kind: str) -> str:
    """A tokenizer's JSON: byte-level BPE as GPT-2's, or BPE on words with their space as Llama 2's."""
    if kind == "metaspace":
        tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        )
        bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
        trainer = trainers.BpeTrainer(
            vocab_size=900, special_tokens=["<unk>", "<s>", "</s>"], initial_alphabet=[], show_progress=False
        )
        tokenizer.train_from_iterator(CORPUS.splitlines(), trainer)
        tokenizer.add_tokens([token for token in bytes_ if tokenizer.token_to_id(token) is None])
        return tokenizer.to_str()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS.splitlines(), trainer)
    return tokenizer.to_str()


def build_tokenizer(kind: str, special: list[str], template: str | None) -> Any:
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer.from_str(trained_backend("metaspace" if kind == "metaspace" else "byte_level"))
    swallows = kind == "swallowing"
    backend.add_special_tokens(
        [AddedToken(token, special=True, normalized=False, rstrip=swallows) for token in special]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = template
    return tokenizer


@cache
def family_tokenizer(name: str) -> Any:
    special, kind, _ = FAMILIES[name]
    return build_tokenizer(kind, special, (TEMPLATES / f"{name}.jinja").read_text().rstrip("\n"))


@pytest.fixture(params=list(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def tokenizer_of() -> Any:
    """The tokenizer of a family, by its name."""
    return family_tokenizer


@pytest.fixture
def refused_tokenizer() -> Any:
    """A ChatML-like tokenizer with one of the templates that allow no exact mask."""
    tokens = [*CHATML, "<|user|>", "<|assistant|>"]
    return lambda name: build_tokenizer(
        "byte_level", tokens, (TEMPLATES / "refused" / f"{name}.jinja").read_text()
    )


@pytest.fixture
def end_of_turn() -> dict[str, str]:
    return {name: end for name, (_, _, end) in FAMILIES.items()}
