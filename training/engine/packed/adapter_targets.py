"""How adapter_config.json names what has a LoRA, so that plain PEFT finds the same.

PEFT takes `gate_proj`, `up_proj` and `down_proj` in `target_modules` of a model with experts for the experts,
also where dense layers or a shared MLP have modules of these names. What is not attention is therefore named
in `target_parameters`: `mlp.shared_experts.up_proj.weight`, and the fused parameters of experts.
"""

from __future__ import annotations

from typing import NamedTuple

from ...config.specs import LoraGroup
from ...models.decoder_families import PLAIN
from ...models.expert_layers import DOWN, EXPERT_TARGETS, GATE_UP
from ...planning.decoder_shape import targeted
from .decoder import PackedDecoder


class AdapterTargets(NamedTuple):
    modules: tuple[str, ...]
    parameters: tuple[str, ...]


def adapter_targets(decoder: PackedDecoder, lora: LoraGroup) -> AdapterTargets:
    config = decoder.config
    targets = targeted(lora, config.family)
    if config.experts is None or not config.experts.family.named_by_peft:
        block = "" if config.experts is None else config.experts.family.block
        experts = tuple(f"{block}{name}" for name in (GATE_UP, DOWN) if name in targets)
        targets = tuple(name for name in targets if name not in EXPERT_TARGETS)
        names = tuple(module.name for module in decoder.lora.modules() if module.experts == 1)
        # Full names where other parts of the model have modules of the same last names.
        return AdapterTargets(targets if config.place == PLAIN else names, experts)
    attention = tuple(name for name in targets if name in config.family.attention_modules)
    dense = {
        module.name.partition(".layers.")[2].partition(".")[2]
        for layer in decoder.layers
        for linear in layer.mlp.linears()
        for module in linear.group
    }
    experts = [f"mlp.{name}" for name in (GATE_UP, DOWN) if name in targets]
    return AdapterTargets(attention, (*(f"{name}.weight" for name in sorted(dense)), *experts))
