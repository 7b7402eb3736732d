"""What kind each layer of a model is of, by its config.json."""

from __future__ import annotations

from ...models.known_config import Config

GEMMA_4 = ("gemma4_text", "gemma4_unified_text")
"""The types of Gemma 4's language models; the second is the 12B's."""


def layer_types(config: Config, period: int) -> list[str]:
    """What kind of attention each layer has; usually each `period`-th has no window."""
    count = range(config["num_hidden_layers"])
    usual = ["sliding_attention" if (layer + 1) % period else "full_attention" for layer in count]
    return config.get("layer_types") or usual


def hybrid_layers(config: Config) -> list[str]:
    """What kind each layer of Qwen 3.5 is of."""
    count, every = range(config["num_hidden_layers"]), config.get("full_attention_interval") or 4
    usual = ["full_attention" if (layer + 1) % every == 0 else "linear_attention" for layer in count]
    return config.get("layer_types") or usual


def layer_kinds(config: Config) -> list[object]:
    """Layers of one kind have weights of the same names."""
    layers = range(config["num_hidden_layers"])
    if config["model_type"] == "glm4_moe":
        return [layer < config["first_k_dense_replace"] for layer in layers]
    if config["model_type"] == "qwen3_5_text":
        return [*hybrid_layers(config)]
    if config["model_type"] in GEMMA_4:
        first_shared = config["num_hidden_layers"] - config["num_kv_shared_layers"]
        return [(kind, layer >= first_shared) for layer, kind in enumerate(layer_types(config, 6))]
    return [None for _ in layers]
