"""A GGUF file becomes a folder that transformers loads as the same model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backpropagate.training.errors import ModelLoadError
from backpropagate.training.models.gguf_llama import convert_gguf


def _load(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    return model, AutoTokenizer.from_pretrained(folder, local_files_only=True)


@pytest.fixture(scope="module")
def converted(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    folder = tmp_path_factory.mktemp("converted")
    convert_gguf(tiny.gguf, folder)
    return _load(folder)


def test_the_converted_model_gives_the_same_logits(tiny: Any, converted: tuple[Any, Any]) -> None:
    import torch

    model, tokenizer = converted
    input_ids = torch.tensor([tokenizer("hello world 12 12")["input_ids"]])
    with torch.no_grad():
        torch.testing.assert_close(model(input_ids).logits, tiny.model(input_ids).logits, rtol=0, atol=0)


def test_the_embeddings_stay_tied(converted: tuple[Any, Any]) -> None:
    model, _ = converted
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_the_tokenizer_splits_digits_and_gives_every_text_back(converted: tuple[Any, Any]) -> None:
    _, tokenizer = converted
    assert tokenizer.tokenize("hello w12<|im_end|>") == ["hello", "Ġw", "1", "2", "<|im_end|>"]
    text = "Wörter,  two  spaces\n\ttab, don't, 東京 🙂"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_the_chat_template_and_the_special_tokens_come_along(converted: tuple[Any, Any]) -> None:
    model, tokenizer = converted
    messages = [{"role": "user", "content": "hello"}]
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert rendered == "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<|im_start|>",
        "<|im_end|>",
        "<|im_end|>",
    )
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == 2


def test_bfloat16_halves_the_file(tiny: Any, tmp_path: Path) -> None:
    import torch

    shares: list[float] = []
    convert_gguf(tiny.gguf, tmp_path, dtype="bfloat16", on_tensor=shares.append)
    model, _ = _load(tmp_path)
    assert model.dtype is torch.bfloat16
    parameters = sum(parameter.numel() for parameter in tiny.model.parameters())
    assert (tmp_path / "model.safetensors").stat().st_size < 2 * parameters + 4096
    assert shares == sorted(shares) and shares[-1] == 1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"architecture": "qwen2"}, "general.architecture = 'qwen2'"),
        ({"pre": "llama-bpe"}, "tokenizer.ggml.pre = 'llama-bpe'"),
        ({"extra": "blk.0.attn_q.bias"}, "blk.0.attn_q.bias"),
    ],
)
def test_another_kind_of_model_is_refused_by_name(
    change: dict[str, str], named: str, write_gguf: Callable[..., Path], tmp_path: Path
) -> None:
    source = write_gguf(tmp_path / "other.gguf", **change)
    with pytest.raises(ModelLoadError) as caught:
        convert_gguf(source, tmp_path)
    assert named in caught.value.message


def test_a_file_that_is_no_gguf_is_refused_with_its_path(tmp_path: Path) -> None:
    source = tmp_path / "broken.gguf"
    source.write_bytes(b"not a model at all, but long enough to look at")
    with pytest.raises(ModelLoadError, match=r"broken\.gguf cannot be read as a GGUF file"):
        convert_gguf(source, tmp_path)
