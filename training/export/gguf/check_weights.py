"""Whether a checkpoint has all the weights that its config requires.

llama.cpp loads some files that lack a weight and uses another one: the embedding for a missing lm_head.
"""

from __future__ import annotations

import re

from ...errors import GgufExportError
from ..merged.merge import LM_HEAD, MergedWeights, is_tied
from .architectures import Config

EMBEDDING = "model.embed_tokens.weight"
LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
IGNORED = (".rotary_emb.inv_freq", ".attention.masked_bias", ".attention.bias")
"""Ends of names that older checkpoints have. These are computed, not trained."""


def check_weights(weights: MergedWeights, config: Config) -> None:
    """Check that the number of layers equals the config's, and that no weight is missing.

    Raises:
        GgufExportError: a weight is missing, or the embedding is not of the config's size.
    """
    found = [match for name in weights.tensors if (match := LAYER.fullmatch(name))]
    parts = {match[2] for match in found if not match[0].endswith(IGNORED)}
    layers = range(config["num_hidden_layers"])
    expected = {f"model.layers.{layer}.{part}" for layer in layers for part in parts}
    expected |= {EMBEDDING, "model.norm.weight"}
    if not is_tied(config):
        expected.add(LM_HEAD)
    missing = sorted(expected - weights.tensors.keys())
    beyond = [match[0] for match in found if int(match[1]) not in layers]
    _require_none(missing, "are missing")
    _require_none(beyond, f"exceed the {len(layers)} layers of config.json")
    shape = (config["vocab_size"], config["hidden_size"])
    if weights.tensors[EMBEDDING].shape != shape:
        raise GgufExportError(
            f"{EMBEDDING} has shape {weights.tensors[EMBEDDING].shape}; config.json says {shape}.",
            hint="Download the model again.",
        )


def _require_none(names: list[str], what: str) -> None:
    if names:
        raise GgufExportError(
            f"The base model's weights do not match its config.json: {len(names)} weights {what}, "
            f"first {names[0]}.",
            hint="Download the model again.",
        )
