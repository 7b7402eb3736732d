"""A GGUF's metadata, read without its weights."""

from __future__ import annotations

from pathlib import Path

import pytest
from gguf import GGUFReader
from tiny_gguf import CHATML, TOKENS, write_gguf

from backpropagate.training.errors import OllamaError
from backpropagate.training.export.gguf.reader import GgufFormatError, read_gguf_header
from backpropagate.training.export.ollama.model_file import read_model_file
from backpropagate.training.next_step import Next, then


def test_the_values_are_those_that_the_gguf_package_reads(gguf: Path) -> None:
    arrays = {"tokenizer.ggml.tokens", "tokenizer.ggml.merges", "tokenizer.ggml.token_type"}
    ours = read_gguf_header(gguf, arrays).metadata
    theirs = {
        name: field.contents()
        for name, field in GGUFReader(gguf).fields.items()
        if not name.startswith("GGUF.")
    }
    assert ours == theirs and set(ours) > arrays


def test_arrays_that_nobody_wants_are_left_out(gguf: Path) -> None:
    values = read_gguf_header(gguf).metadata
    assert "tokenizer.ggml.tokens" not in values and values["tokenizer.chat_template"] == CHATML


def test_a_file_that_is_cut_off_anywhere_in_its_header_is_refused(gguf: Path, tmp_path: Path) -> None:
    whole = gguf.read_bytes()
    header = whole.index(b"token_embd.weight") - 8
    cut = tmp_path / "cut.gguf"
    for length in range(0, header, 7):
        cut.write_bytes(whole[:length])
        with pytest.raises(GgufFormatError):
            read_gguf_header(cut)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"junk" * 20,
        b"GGUF" + b"\xff" * 60,
        b"GGUF\x03\0\0\0" + b"\0" * 8 + b"\x01" + b"\0" * 7 + b"\xff" * 40,
    ],
)
def test_junk_is_refused_and_not_believed(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "junk.gguf"
    path.write_bytes(content)
    with pytest.raises(OllamaError, match="not a readable GGUF file") as refused:
        read_model_file(path)
    assert refused.value.hint


def test_a_models_tokens_are_told_by_name(gguf: Path) -> None:
    model = read_model_file(gguf)
    assert (model.bos_token, model.eos_token, model.adds_bos) == ("<|im_start|>", "<|endoftext|>", False)
    assert model.end_tokens == ("<|endoftext|>",)
    assert model.control_tokens == frozenset(TOKENS[:3])


@pytest.mark.parametrize(
    ("arguments", "words", "hint", "next"),
    [
        ({"kind": "adapter"}, "LoRA adapter", "merges the adapter", then("export", source=...)),
        ({"kind": "mmproj"}, "not a language model", "GGUF of the model", None),
        ({"template": None}, "no chat template", "-Instruct", then("export", source=...)),
    ],
)
def test_what_cannot_be_a_chat_model_is_refused_with_the_next_step(
    arguments: dict[str, str], words: str, hint: str, next: Next | None, tmp_path: Path
) -> None:
    path = write_gguf(tmp_path / "odd.gguf", **arguments)  # type: ignore[arg-type]
    with pytest.raises(OllamaError, match=words) as refused:
        read_model_file(path)
    assert refused.value.code == "DEP_OLLAMA_REGISTRATION_FAILED" and hint in str(refused.value.hint)
    assert refused.value.next == next


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OllamaError, match=r"none\.gguf cannot be read"):
        read_model_file(tmp_path / "none.gguf")
