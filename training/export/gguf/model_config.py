"""A model's config.json as Transformers understands it, if llama.cpp computes the same.

An entry that is not known, and a value with which llama.cpp computes something else, are refused by name.
Checked against the sources of llama.cpp, and by running it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ...errors import GgufExportError
from ...files.atomic_json import read_json
from ...models.known_config import (
    DEFAULTS,
    Config,
    complete_config,
    impossible_entry,
    is_count,
    unknown_entry,
)
from ...next_step import then
from ...untrusted import quoted, short_name, shown_path
from .rope import rope_of


def model_config(folder: Path) -> Config:
    """The config.json of a model folder, with Transformers' default for each entry that it lacks.

    Raises:
        GgufExportError: the family is not supported, an entry is not known, or llama.cpp would compute
            something else.
    """
    path = folder / "config.json"
    try:
        config = read_json(path)
    except (OSError, ValueError, RecursionError) as error:
        raise GgufExportError(
            f"{shown_path(path)} cannot be read: {type(error).__name__}.", cause=error, untrusted=str(error)
        ) from error
    family = _supported_family(config)
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


def ignored_window(config: Config) -> int | None:
    """The tokens of a sliding window that the model has and llama.cpp ignores, or None."""
    window, context = config.get("sliding_window"), config["max_position_embeddings"]
    if config["model_type"] not in {"mistral", "phi3"} or not window or window >= context:
        return None
    return window


def head_dim(config: Config) -> int:
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


# --- What cannot be exported. ---
def _supported_family(config: Config) -> str:
    family = config.get("model_type")
    if not isinstance(family, str) or family not in DEFAULTS:
        raise GgufExportError(
            f"Models of type {quoted(family)} cannot be exported to GGUF. Supported: {', '.join(DEFAULTS)}.",
            hint="Export the merged model, and convert it with llama.cpp.",
            next=then("ask_again", format="merged"),
        )
    if config.get("quantization_config"):
        raise GgufExportError(
            "The base model is already quantised.", hint="Export from the unquantised base model."
        )
    return family


def _refused(message: str, hint: str) -> GgufExportError:
    return GgufExportError(message, hint=hint, next=then("ask_again", format="merged"))


def _shown(entry: tuple[str, object]) -> str:
    return f"{quoted(entry[0])} = {short_name(repr(entry[1]))}"


# --- What is built into llama.cpp: each yields what it expects and the config does not have. ---
def _expect(config: Config, name: str, *allowed: object) -> Iterator[str]:
    value = config.get(name)
    if value not in allowed:
        yield f"expects {name} = {allowed[-1]!r}, not {short_name(repr(value))}"


def _llama(config: Config) -> Iterator[str]:
    yield from _expect(config, "hidden_act", "swish", "silu")
    yield from _expect(config, "layer_types", None, ["full_attention"] * config["num_hidden_layers"])


def _phi3(config: Config) -> Iterator[str]:
    yield from _llama(config)
    yield from _expect(config, "head_dim", None, config["hidden_size"] // config["num_attention_heads"])


def _qwen3(config: Config) -> Iterator[str]:
    yield from _llama(config)
    if config["use_sliding_window"]:
        yield f"has no sliding window in {config['model_type']} models"


def _qwen2(config: Config) -> Iterator[str]:
    yield from _qwen3(config)
    yield from _phi3(config)


def _smollm3(config: Config) -> Iterator[str]:
    yield from _qwen3(config)
    if not _rotates_as_smollm3(config):
        yield "expects no RoPE on every 4th SmolLM3 layer"


def _rotates_as_smollm3(config: Config) -> bool:
    """Every 4th layer has no RoPE; `no_rope_layers` (0: none, 1: RoPE) takes precedence over the interval."""
    listed, layers = config["no_rope_layers"], range(config["num_hidden_layers"])
    if listed is None:
        return config["no_rope_layer_interval"] == 4
    return len(listed) >= len(layers) and all(bool(listed[layer]) == (layer % 4 != 3) for layer in layers)


def _gemma(config: Config, period: int, layers_of_27b: int) -> Iterator[str]:
    """Every `period`-th layer has no window, and scores are divided by the root of the head's size."""
    layers = config["num_hidden_layers"]
    size = config["hidden_size"] // config["num_attention_heads"]
    yield from _expect(config, "hidden_activation", "gelu_pytorch_tanh")
    yield from _expect(config, "query_pre_attn_scalar", size if layers == layers_of_27b else head_dim(config))
    kinds = ["sliding_attention" if (layer + 1) % period else "full_attention" for layer in range(layers)]
    yield from _expect(config, "layer_types", None, kinds)
    if not is_count(config["sliding_window"]):
        yield "expects a number above 0 as sliding_window"


def _gemma2(config: Config) -> Iterator[str]:
    yield from _gemma(config, 2, 46)
    yield from _expect(config, "tie_word_embeddings", True)
    for name in ("attn_logit_softcapping", "final_logit_softcapping"):
        if not config[name]:
            yield f"expects {name}"


def _gemma3(config: Config) -> Iterator[str]:
    yield from _gemma(config, 6, 62)
    for name in ("sliding_window_pattern", "_sliding_window_pattern"):
        yield from _expect(config, name, None, 6)


DIFFERENCES: Mapping[str, Callable[[Config], Iterator[str]]] = {
    "llama": _llama,
    "mistral": _llama,
    "smollm3": _smollm3,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
    "phi3": _phi3,
}
