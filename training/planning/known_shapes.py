"""The config.json of the presets, as far as it tells their sizes: to plan without a network.

A test compares the number of weights with what the presets say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .decoder_shape import DecoderShape, decoder_shape


def _config(
    family: str, hidden: int, layers: int, heads: int, kv_heads: int, inner: int, vocab: int, **more: Any
) -> dict[str, Any]:
    return {
        "model_type": family,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": inner,
        "vocab_size": vocab,
        "tie_word_embeddings": True,
        **more,
    }


def _with_vision(family: str, text: dict[str, Any]) -> dict[str, Any]:
    """Of a model with other parts, which are not trained."""
    return {"model_type": family, "text_config": text, "tie_word_embeddings": text["tie_word_embeddings"]}


KNOWN: Mapping[str, Mapping[str, Any]] = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": _config("llama", 576, 30, 9, 3, 1536, 49152),
    "Qwen/Qwen3-0.6B": _config("qwen3", 1024, 28, 16, 8, 3072, 151936, head_dim=128),
    "meta-llama/Llama-3.2-1B-Instruct": _config("llama", 2048, 16, 32, 8, 8192, 128256),
    "Qwen/Qwen3-1.7B": _config("qwen3", 2048, 28, 16, 8, 6144, 151936, head_dim=128),
    "HuggingFaceTB/SmolLM3-3B": _config("smollm3", 2048, 36, 16, 4, 11008, 128256),
    "Qwen/Qwen2.5-3B-Instruct": _config("qwen2", 2048, 36, 16, 2, 11008, 151936),
    "meta-llama/Llama-3.2-3B-Instruct": _config("llama", 3072, 28, 24, 8, 8192, 128256),
    "microsoft/Phi-4-mini-instruct": _config(
        "phi3",
        3072,
        32,
        24,
        8,
        8192,
        200064,
        partial_rotary_factor=0.75,
        max_position_embeddings=131072,
        original_max_position_embeddings=4096,
        rope_scaling={"type": "longrope"},
    ),
    "google/gemma-3-4b-it": _with_vision(
        "gemma3", _config("gemma3_text", 2560, 34, 8, 4, 10240, 262208, head_dim=256, sliding_window=1024)
    ),
    "Qwen/Qwen3-4B": _config("qwen3", 2560, 36, 32, 8, 9728, 151936, head_dim=128),
    "Qwen/Qwen3.5-4B": _with_vision(
        "qwen3_5", _config("qwen3_5_text", 2560, 32, 16, 4, 9216, 248320, head_dim=256)
    ),
    "google/gemma-4-E4B-it": _with_vision(
        "gemma4",
        _config(
            "gemma4_text",
            2560,
            42,
            8,
            2,
            10240,
            262144,
            head_dim=256,
            sliding_window=512,
            hidden_size_per_layer_input=256,
            vocab_size_per_layer_input=262144,
            num_kv_shared_layers=18,
        ),
    ),
    "mistralai/Mistral-7B-Instruct-v0.3": _config(
        "mistral", 4096, 32, 32, 8, 14336, 32768, tie_word_embeddings=False
    ),
    "Qwen/Qwen2.5-7B-Instruct": _config("qwen2", 3584, 28, 28, 4, 18944, 152064, tie_word_embeddings=False),
    "Qwen/Qwen3-8B": _config(
        "qwen3", 4096, 36, 32, 8, 12288, 151936, head_dim=128, tie_word_embeddings=False
    ),
    "openai/gpt-oss-20b": _config(
        "gpt_oss",
        2880,
        24,
        64,
        8,
        2880,
        201088,
        head_dim=64,
        tie_word_embeddings=False,
        num_local_experts=32,
        num_experts_per_tok=4,
        quantization_config={"quant_method": "mxfp4"},
    ),
    "mistralai/Mistral-Small-24B-Instruct-2501": _config(
        "mistral", 5120, 40, 32, 8, 32768, 131072, head_dim=128, tie_word_embeddings=False
    ),
}
"""By Hub id."""

USUAL_SIZES: Mapping[str, Mapping[str, Any]] = {
    "1.7B": KNOWN["Qwen/Qwen3-1.7B"],
    "3B": KNOWN["Qwen/Qwen2.5-3B-Instruct"],
    "7B": KNOWN["Qwen/Qwen2.5-7B-Instruct"],
    "14B": _config("qwen2", 5120, 48, 40, 8, 13824, 152064, tie_word_embeddings=False),
    "32B": _config("qwen2", 5120, 64, 40, 8, 27648, 152064, tie_word_embeddings=False),
    "70B": _config("llama", 8192, 80, 64, 8, 28672, 128256, tie_word_embeddings=False),
}
"""Sizes in which people compare models, each by a usual one."""


def usual_shape(billions: float) -> DecoderShape:
    """A decoder of about this size, for a model of which only the number of weights is known."""
    shapes = [decoder_shape(config) for config in (*KNOWN.values(), *USUAL_SIZES.values())]
    return min(shapes, key=lambda shape: abs(shape.billions / billions - 1))
