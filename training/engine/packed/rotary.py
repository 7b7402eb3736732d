"""The rotary positions of each layer: angle per position of each pair of dimensions.

Su et al. 2021, arXiv:2104.09864; the scalings are transformers' own.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...models.attention_heads import Heads
from ...models.decoder_families import Family


class Rotary(NamedTuple):
    """How queries and keys are rotated."""

    inverse_frequencies: Tensor  # (rotated dimensions / 2,) fp32
    scale: float
    """Factor on cos and sin (YaRN's and LongRoPE's attention factor)."""


def rotations(
    config: Any, family: Family, heads: tuple[Heads, ...]
) -> tuple[tuple[Rotary, ...], tuple[int, ...]]:
    """The model's different rotations, and for each layer which of them it has.

    A layer without positions (NoPE) is rotated by angle 0.
    """
    kinds = [(_kind(config, family, layer), each.head_dim) for layer, each in enumerate(heads)]
    different = list(dict.fromkeys(kinds))
    return tuple(_rotary(config, *kind) for kind in different), tuple(map(different.index, kinds))


def _kind(config: Any, family: Family, layer: int) -> str | bool:
    if not family.rotated_layers(config)[layer]:
        return False
    return config.layer_types[layer] if family.rope_by_layer_type else True


def _rotary(config: Any, kind: str | bool, head_dim: int) -> Rotary:
    """Of layers of a type, or of all (True), or of those without positions (False)."""
    if kind is False:
        return Rotary(torch.zeros(_first_rotary(config, head_dim).inverse_frequencies.shape), 1.0)
    if kind is True:
        return _first_rotary(config, head_dim)
    return _computed(config, config.rope_parameters[kind], kind, head_dim)


def _first_rotary(config: Any, head_dim: int) -> Rotary:
    return _computed(config, config.rope_parameters, None, head_dim)


def _computed(config: Any, rope: dict[str, Any], layer_type: str | None, head_dim: int) -> Rotary:
    """θ^(-2i/d), scaled as the config says.

    "dynamic" and "longrope" change beyond the trained length only, which the packed step does not reach.
    """
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    kind, size = rope["rope_type"], int(head_dim * (rope.get("partial_rotary_factor") or 1.0))
    theta = rope["rope_theta"]
    if kind == "dynamic" and rope.get("alpha"):  # Hunyuan's fixed scaling of the base (NTK-aware)
        kind, theta = "default", theta * rope["alpha"] ** (size / (size - 2))
    if kind == "default":
        return Rotary(1.0 / theta ** (torch.arange(0, size, 2, dtype=torch.float32) / size), 1.0)
    frequencies, scale = ROPE_INIT_FUNCTIONS[kind](config, layer_type=layer_type)
    return Rotary(frequencies.float(), float(scale))
