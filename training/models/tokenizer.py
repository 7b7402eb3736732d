"""From a folder to a tokenizer; never with code from the folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import ModelLoadError
from ..untrusted import shown_path


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
    return tokenizer


def load_error(path: Path, what: str, error: Exception) -> ModelLoadError:
    """A folder's model or tokenizer that transformers cannot load, as an error of one line."""
    return ModelLoadError(
        f"The {what} in {shown_path(path)} could not be loaded: {type(error).__name__}.",
        hint="The folder must contain a causal language model that transformers supports, as safetensors.",
        untrusted=str(error),
        cause=error,
    )
