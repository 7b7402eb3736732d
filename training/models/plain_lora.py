"""Which adapters are W + s·B·A, by what their adapter_config.json says.

What is known stands here; anything else that is set is refused by its name, so that an adapter of a newer
PEFT is not taken for less than it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..untrusted import quoted, short_name

WITHOUT_EFFECT = frozenset(
    {
        *("peft_type", "peft_version", "task_type", "auto_mapping", "inference_mode", "runtime_config"),
        *("base_model_name_or_path", "revision"),
        *("r", "lora_alpha", "use_rslora", "lora_dropout"),
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
        *("eva_config", "megatron_core", "qalora_group_size"),
    }
)
"""Entries that whoever merges has read, that choose modules, or that are read in training only."""

NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "bias": ("none",),
    # The other ways to begin (PiSSA, OLoRA, CorDA, LoftQ, …) move a part of the base's weights into A and B,
    # and PEFT does so again with each load.
    "init_lora_weights": (True, "gaussian", "eva", "orthogonal"),
}
"""Values of an entry, besides those in `OFF`, with which an adapter is plain."""
OFF: tuple[object, ...] = (None, False, {}, [])

MEANINGS = {
    "alora_invocation_tokens": "LoRA that acts after certain tokens only",
    "alpha_pattern": "scales that differ by module",
    "bias": "trained biases",
    "fan_in_fan_out": "transposed weights",
    "init_lora_weights": "matrices that replace a part of the base's weights",
    "layer_replication": "layers of the base that are repeated",
    "lora_bias": "trained biases",
    "modules_to_save": "whole modules that were trained",
    "rank_pattern": "ranks that differ by module",
    "target_parameters": "trained parameters outside of linear layers",
    "trainable_token_indices": "trained tokens",
    "use_dora": "DoRA",
}


def beyond_plain_lora(config: Mapping[str, Any]) -> str | None:
    """What an adapter is besides W + s·B·A, or None: the first entry that says more, with its meaning.

    Args:
        config: the content of adapter_config.json, of the type LORA.
    """
    for name, value in sorted(config.items()):
        if name in WITHOUT_EFFECT or _is_neutral(name, value):
            continue
        meaning = f" ({MEANINGS[name]})" if name in MEANINGS else ""
        return f"{quoted(name)} = {short_name(repr(value))}{meaning}"
    return None


def unknown_to_us(config: Mapping[str, Any]) -> str | None:
    """An entry of adapter_config.json, as set, that is neither plain nor of a known meaning; None if none."""
    known = WITHOUT_EFFECT | MEANINGS.keys()
    for name, value in sorted(config.items()):
        if name not in known and not _is_neutral(name, value):
            return f"{quoted(name)} = {short_name(repr(value))}"
    return None


def _is_neutral(name: str, value: object) -> bool:
    return any(value is known or (type(value) is type(known) and value == known) for known in _neutral(name))


def _neutral(name: str) -> tuple[object, ...]:
    return (*OFF, *NEUTRAL.get(name, ()))
