"""Whether a checkpoint has all the weights that its config requires.

llama.cpp loads some files that lack a weight and uses another one: the embedding for a missing lm_head.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from ...errors import GgufExportError
from ...models.attention_heads import PERIOD
from ...models.known_config import Config
from ...untrusted import quoted
from ..merged.merge import LM_HEAD, MergedWeights, is_tied, read_rows
from .layer_kinds import GEMMA_4, layer_kinds, layer_types
from .rope import head_dim

EMBEDDING = "model.embed_tokens.weight"
LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
BLOCK = 4096  # rows that are compared at once
IGNORED = (".rotary_emb.inv_freq", ".attention.masked_bias", ".attention.bias")
"""Ends of names that older checkpoints have. These are computed, not trained."""


def check_weights(weights: MergedWeights, config: Config) -> None:
    """Check that the number of layers equals the config's, and that no weight is missing.

    Raises:
        GgufExportError: a weight is missing or not of the config's size, or a tied one differs from its pair.
    """
    found = [match for name in weights.tensors if (match := LAYER.fullmatch(name))]
    layers = range(config["num_hidden_layers"])
    expected = set(_parts_of_layers(found, config))
    expected |= {EMBEDDING, "model.norm.weight"}
    if not is_tied(config):
        expected.add(LM_HEAD)
    elif LM_HEAD in weights.tensors and EMBEDDING in weights.tensors:
        _require_equal_head(weights)
    if config.get("attention_k_eq_v"):
        kinds = layer_types(config, PERIOD)
        full = [layer for layer, kind in enumerate(kinds) if kind == "full_attention"]
        unread = {f"model.layers.{layer}.self_attn.v_proj.weight" for layer in full}
        _require_none(sorted(unread & weights.tensors.keys()), "are there that attention_k_eq_v leaves out")
    missing = sorted(expected - weights.tensors.keys())
    beyond = [match[0] for match in found if int(match[1]) not in layers]
    _require_none(missing, "are missing")
    _require_none(beyond, f"exceed the {len(layers)} layers of config.json")
    shapes = _shapes(config)
    for name, tensor in weights.tensors.items():
        shape = shapes.get(name if name == EMBEDDING else name.rpartition("layers.")[2].partition(".")[2])
        if shape is not None and tensor.shape != shape:
            raise GgufExportError(
                f"{quoted(name)} has shape {tensor.shape}; config.json says {shape}.",
                hint="Download the model again.",
            )


def _parts_of_layers(found: list[re.Match[str]], config: Config) -> Iterator[str]:
    """The names of all weights in layers, if each layer has what others of its kind have."""
    kinds = layer_kinds(config)
    parts: dict[object, set[str]] = defaultdict(set)
    for match in found:
        if int(match[1]) < len(kinds) and not match[0].endswith(IGNORED):
            parts[kinds[int(match[1])]].add(match[2])
    for layer, kind in enumerate(kinds):
        yield from (f"model.layers.{layer}.{part}" for part in parts[kind])


def _shapes(config: Config) -> dict[str, tuple[int, int]]:
    """The shapes of matrices that follow from the config, by their names within a layer."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    if config["model_type"] in GEMMA_4:  # sizes differ by layer
        return {EMBEDDING: (config["vocab_size"], hidden)}
    queries = config["num_attention_heads"] * head_dim(config)
    gated = 2 if config["model_type"] == "qwen3_5_text" else 1
    keys = config["num_key_value_heads"] * head_dim(config)
    return {
        EMBEDDING: (config["vocab_size"], hidden),
        "self_attn.q_proj.weight": (gated * queries, hidden),
        "self_attn.k_proj.weight": (keys, hidden),
        "self_attn.v_proj.weight": (keys, hidden),
        "self_attn.qkv_proj.weight": (queries + 2 * keys, hidden),
        "self_attn.o_proj.weight": (hidden, queries),
        "mlp.gate_proj.weight": (inner, hidden),
        "mlp.up_proj.weight": (inner, hidden),
        "mlp.gate_up_proj.weight": (2 * inner, hidden),
        "mlp.down_proj.weight": (hidden, inner),
    }


def _require_none(names: list[str], what: str) -> None:
    if names:
        raise GgufExportError(
            f"The base model's weights do not match its config.json: {len(names)} weights {what}, "
            f"first {quoted(names[0])}.",
            hint="Download the model again.",
        )


def _require_equal_head(weights: MergedWeights) -> None:
    """Transformers does not tie two weights that differ, whatever the config says."""
    embedding, head = weights.tensors[EMBEDDING], weights.tensors[LM_HEAD]
    rows = embedding.shape[0]
    same = embedding.shape == head.shape and all(
        np.array_equal(read_rows(embedding, start, stop), read_rows(head, start, stop))
        for start, stop in zip(range(0, rows, BLOCK), [*range(BLOCK, rows, BLOCK), rows], strict=True)
    )
    if not same:
        raise GgufExportError(
            f"{LM_HEAD} is tied to the embedding (tie_word_embeddings in config.json), but they differ.",
            hint="Set tie_word_embeddings to false in config.json, and export again.",
        )
