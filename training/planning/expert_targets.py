"""What is trained of a model with experts: what its target_modules means, in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config.specs import LoraGroup
from ..models.expert_layers import DOWN, EXPERT_TARGETS, GATE_UP, ExpertSizes, target_name
from .decoder_shape import DecoderShape, decoder_shape, targeted

BALANCE_OFF = "routers are frozen, and the auxiliary loss that balances experts is off"


def said_of_experts(config: Mapping[str, Any], lora: LoraGroup) -> str | None:
    """What is trained of a model with experts, and what is not; None for one without.

    Args:
        config: the content of config.json, of a model that the packed engine trains.
    """
    shape = decoder_shape(config)
    routed = shape.routed
    return None if routed is None else f"{_said_of_targets(shape, routed, lora)}; {BALANCE_OFF}"


def targets_experts(lora: LoraGroup) -> bool:
    names = [lora.target_modules] if isinstance(lora.target_modules, str) else lora.target_modules
    return any(target_name(name) in EXPERT_TARGETS for name in names)


def targets_with_experts(config: Mapping[str, Any], lora: LoraGroup) -> list[str] | None:
    """`target_modules` that train the experts as well; None where their LoRA could not be exported.

    Args:
        config: as for `said_of_experts`.
    """
    shape = decoder_shape(config)
    if shape.routed is None or shape.mxfp4:
        return None
    names = targeted(lora, shape.family)
    if not shape.routed.shared_width and shape.sparse_layers == shape.num_layers:
        names = tuple(name for name in names if name in shape.family.attention_modules)
    return [*names, GATE_UP, DOWN]


def _said_of_targets(shape: DecoderShape, routed: ExpertSizes, lora: LoraGroup) -> str:
    targets = targeted(lora, shape.family)
    dense = shape.sparse_layers < shape.num_layers
    places = [*(["dense layers"] if dense else []), *(["the shared MLP"] if routed.shared_width else [])]
    said = ["attention"] if set(targets) & set(shape.family.attention_modules) else []
    said += places if set(targets) & set(shape.family.mlp_modules) else []
    of_experts = [name for name in EXPERT_TARGETS if name in targets]
    if of_experts:
        shared = "; gate and up share one" if GATE_UP in of_experts else ""
        each = f"each of {routed.count} experts (rank {lora.r} each{shared})"
        said.append(f"{' and '.join(of_experts)} of {each}")
    return f"LoRA on {', '.join(said) or 'nothing'}{'' if of_experts else ', not on experts'}"
