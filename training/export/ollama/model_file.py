"""The metadata of a GGUF file, and which files cannot become a chat model of Ollama."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import OllamaError
from ...next_step import then
from ...untrusted import quoted, short_name, shown_path
from ..gguf.reader import GgufFormatError, read_gguf_header

TOKENS, TOKEN_TYPES = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type"
CONTROL_TYPES = frozenset({3, 4})  # control, and user-defined
ENDS = ("eos_token_id", "eot_token_id")


@dataclass(frozen=True)
class ModelFile:
    """A GGUF of a whole chat model.

    Args:
        chat_template: the Jinja template that the model was trained with.
        bos_token: starts a text; Ollama adds it if `adds_bos`.
        end_tokens: end the model's answer.
        control_tokens: tokens that are not text.
    """

    path: Path
    size: int
    chat_template: str
    bos_token: str
    eos_token: str
    adds_bos: bool
    end_tokens: tuple[str, ...]
    control_tokens: frozenset[str]


def read_model_file(path: Path) -> ModelFile:
    """Read the file's metadata; the weights are not looked at.

    Raises:
        OllamaError: there is no such file, or it is no GGUF, an adapter, a part of a model, or has no chat
            template.
    """
    values = _values(path)
    _refuse_other_kinds(path, values)
    template = values.get("tokenizer.chat_template")
    if not isinstance(template, str) or not template.strip():
        raise OllamaError(
            f"{shown_path(path)} has no chat template, so Ollama cannot format conversations for the model.",
            hint="Export a model with a chat template, such as an -Instruct model.",
            next=then("export", source=...),
        )
    token = _Tokens(values)
    return ModelFile(
        path=path,
        size=path.stat().st_size,
        chat_template=template,
        bos_token=token.named("bos_token_id"),
        eos_token=token.named("eos_token_id"),
        adds_bos=values.get("tokenizer.ggml.add_bos_token") is not False,
        end_tokens=tuple(dict.fromkeys(found for name in ENDS if (found := token.named(name)))),
        control_tokens=token.control(),
    )


def _values(path: Path) -> dict[str, Any]:
    try:
        return read_gguf_header(path, arrays={TOKENS, TOKEN_TYPES}).metadata
    except GgufFormatError as error:
        raise OllamaError(
            f"{shown_path(path)} is not a readable GGUF file: {error}.",
            hint="Export it again.",
            next=then("export", source=...),
        ) from error
    except OSError as error:
        raise OllamaError(
            f"{shown_path(path)} cannot be read ({error.strerror or type(error).__name__}).",
            hint="Give the absolute path of a GGUF file.",
        ) from error


def _refuse_other_kinds(path: Path, values: dict[str, Any]) -> None:
    kind = values.get("general.type", "model")
    if kind == "adapter":
        raise OllamaError(
            f"{shown_path(path)} is a LoRA adapter, and Ollama no longer accepts adapters alone.",
            hint="Export the run to GGUF: this merges the adapter into its model.",
            next=then("export", source=...),
        )
    if kind != "model" or values.get("general.architecture") == "clip":
        raise OllamaError(
            f"{shown_path(path)} is not a language model (its general.type is {quoted(kind)}).",
            hint="Give the GGUF of the model itself.",
        )
    if (parts := values.get("split.count", 1)) > 1:
        raise OllamaError(
            f"{shown_path(path)} is one of {short_name(parts)} parts of a model.",
            hint="Merge them with llama.cpp's `llama-gguf-split --merge`, or export again into one file.",
        )


class _Tokens:
    """The vocabulary in a file's metadata."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values
        self._tokens: list[str] = values.get(TOKENS, [])
        self._types: list[int] = values.get(TOKEN_TYPES, [])

    def named(self, name: str) -> str:
        """The token under this name, or an empty text."""
        index = self._values.get(f"tokenizer.ggml.{name}")
        return self._tokens[index] if isinstance(index, int) and index < len(self._tokens) else ""

    def control(self) -> frozenset[str]:
        pairs = zip(self._tokens, self._types, strict=False)
        return frozenset(token for token, kind in pairs if kind in CONTROL_TYPES and token.strip())
