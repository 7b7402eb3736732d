"""Whether a checkpoint has all the weights that its config speaks of.

llama.cpp loads some files that lack one, and puts another in its place: the embedding for a missing head.
"""

from __future__ import annotations

import re

from ...errors import GgufExportError
from ..merged.merge import LM_HEAD, MergedWeights, is_tied
from .architectures import Config

EMBEDDING = "model.embed_tokens.weight"
LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
IGNORED = (".rotary_emb.inv_freq", ".attention.masked_bias", ".attention.bias")
"""Ends of names that older checkpoints have; they are computed, not trained."""


def check_weights(weights: MergedWeights, config: Config) -> None:
    """Each layer has what any layer has, there are as many as the config says, and all around them is there.

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
    _require_none(beyond, f"are there beside the {len(layers)} layers of config.json")
    shape = (config["vocab_size"], config["hidden_size"])
    if weights.tensors[EMBEDDING].shape != shape:
        raise GgufExportError(
            f"{EMBEDDING} has shape {weights.tensors[EMBEDDING].shape}; config.json says {shape}.",
            hint="Download the model again.",
        )


def _require_none(names: list[str], what: str) -> None:
    if names:
        raise GgufExportError(
            f"The base's files and its config.json do not fit: {len(names)} weights {what}, "
            f"{names[0]} the first.",
            hint="Download the model again.",
        )
