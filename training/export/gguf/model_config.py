"""A model's config.json as Transformers understands it, if llama.cpp computes the same.

An entry that is not known, and a value with which llama.cpp computes something else, are refused by name.
Checked against the sources of llama.cpp, and by running it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ...errors import GgufExportError
from ...models.known_config import (
    Config,
    complete_config,
    impossible_entry,
    unknown_entry,
)
from ...models.text_model import read_text_config
from ...next_step import then
from ...untrusted import quoted, short_name, shown_path
from .differences import DIFFERENCES
from .rope import rope_of


def model_config(folder: Path) -> Config:
    """The config.json of a model folder, with Transformers' default for each entry that it lacks.

    Raises:
        GgufExportError: the family is not supported, an entry is not known, or llama.cpp would compute
            something else.
    """
    path = folder / "config.json"
    try:
        config = read_text_config(folder)
    except (OSError, ValueError, RecursionError) as error:
        raise GgufExportError(
            f"{shown_path(path)} cannot be read: {type(error).__name__}.", cause=error, untrusted=str(error)
        ) from error
    family = _supported_family(config)
    config.pop("quantization_config", None)
    unknown = unknown_entry(config)
    if unknown:
        raise _refused(
            f"{shown_path(path)} has {_shown(unknown)}, which is not known of {family} models: llama.cpp "
            "might compute something else.",
            "Remove the entry if the model does not need it, or export the merged model instead.",
        )
    complete = complete_config(config)
    impossible = impossible_entry(complete)
    if impossible:
        raise GgufExportError(
            f"{shown_path(path)} has {_shown(impossible)}; a number above 0 was expected.",
            hint="Download the model again.",
        )
    rope_of(complete)
    for difference in DIFFERENCES[family](complete):
        raise _refused(
            f"llama.cpp {difference}; this {family} model differs.", "Export the merged model instead."
        )
    return complete


def runtime_warnings(config: Config) -> Iterator[str]:
    """What llama.cpp computes otherwise in long conversations.

    Args:
        config: of `model_config`.
    """
    window = ignored_window(config)
    if window is not None:
        yield (
            f"The model has a sliding window of {window} tokens, which llama.cpp ignores: "
            "in longer conversations its answers may differ from those before the export."
        )
    rope = rope_of(config)
    if rope.kind == "longrope":
        yield (
            f"With a context above {rope.fields['original_max_position_embeddings']} tokens, llama.cpp uses "
            "the LongRoPE factors of long texts for short ones too: its answers may differ from those before "
            "the export."
        )

    if rope.kind == "yarn" and rope.fields.get("truncate") is False:
        yield (
            "llama.cpp rounds the dimensions between which YaRN changes from one frequency to another, which "
            "this model does not: its answers may differ slightly from those before the export."
        )
    if config.get("num_nextn_predict_layers"):
        yield "The layers that predict further tokens are not exported: no training changes them."


def ignored_window(config: Config) -> int | None:
    """The tokens of a sliding window that the model has and llama.cpp ignores, or None."""
    window, context = config.get("sliding_window"), config["max_position_embeddings"]
    if (
        config["model_type"] not in {"mistral", "ministral3", "phi3", "mixtral"}
        or not window
        or window >= context
    ):
        return None
    return window


# --- What cannot be exported. ---
def _supported_family(config: Config) -> str:
    family = config.get("model_type")
    if not isinstance(family, str) or family not in DIFFERENCES:
        raise GgufExportError(
            f"Models of type {quoted(family)} cannot be exported to GGUF. "
            f"Supported: {', '.join(DIFFERENCES)}.",
            hint="Export the merged model, and convert it with llama.cpp.",
            next=then("ask_again", format="merged"),
        )
    if config.get("quantization_config") and not _is_mxfp4(config):
        raise GgufExportError(
            "The base model is already quantised.", hint="Export from the unquantised base model."
        )
    return family


def _is_mxfp4(config: Config) -> bool:
    """GPT-OSS as it is published: GGUF has its 4-bit experts as they are."""
    stored: Config = config["quantization_config"]
    return config["model_type"] == "gpt_oss" and stored.get("quant_method") == "mxfp4"


def _refused(message: str, hint: str) -> GgufExportError:
    return GgufExportError(message, hint=hint, next=then("ask_again", format="merged"))


def _shown(entry: tuple[str, object]) -> str:
    return f"{quoted(entry[0])} = {short_name(repr(entry[1]))}"
