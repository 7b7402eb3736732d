"""From a folder to a tokenizer; never with code from the folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import ModelLoadError
from ..untrusted import shown_path

PROBE = "the quick brown fox jumps over the lazy dog"
"""Has each letter of the alphabet."""


def load_tokenizer(model_path: Path) -> Any:
    """The model's tokenizer, with a padding token.

    Raises:
        ModelLoadError: the folder holds none that can be loaded.
    """
    from transformers import AutoTokenizer

    auto: Any = AutoTokenizer  # untyped in transformers
    try:
        tokenizer = auto.from_pretrained(model_path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises what its parsers raise
        raise load_error(model_path, "tokenizer", error) from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    require_text(model_path, tokenizer.decode(tokenizer(PROBE, add_special_tokens=False)["input_ids"]))
    return tokenizer


def require_text(path: Path, decoded: str) -> None:
    """Checks a tokenizer by what it makes of `PROBE`, encoded and decoded.

    Raises:
        ModelLoadError: most letters are lost. Some classes build an empty tokenizer if a file is missing.
    """
    kept = set(decoded.casefold()) & set(PROBE)
    if 2 * len(kept - {" "}) < len(set(PROBE) - {" "}):
        raise ModelLoadError(
            f"The tokenizer in {shown_path(path)} loses the letters of a plain text: "
            "tokenizer.json is missing, or is not this model's.",
            hint="Download the model's folder again, with all of its tokenizer files.",
        )


def load_error(path: Path, what: str, error: Exception) -> ModelLoadError:
    """A folder's model or tokenizer that transformers cannot load, as an error of one line."""
    return ModelLoadError(
        f"The {what} in {shown_path(path)} could not be loaded: {type(error).__name__}.",
        hint="The folder must contain a causal language model that transformers supports, as safetensors.",
        untrusted=str(error),
        cause=error,
    )
