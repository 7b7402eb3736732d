"""Which of our own two steps trains a model, and why; from the entries of its config.json."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, Literal

from ..config.fields import EngineName
from ..config.specs import LoraGroup, TrainingSpec
from ..models.decoder_families import (
    ACTIVATIONS,
    FAMILIES,
    MULTIMODAL,
    Family,
    decoder_entries,
    family_of,
)
from ..models.expert_layers import EXPERT_TARGETS, LARGEST_MATRIX, expert_sizes, is_mxfp4, target_name
from ..models.known_config import complete_config, unknown_entry
from ..untrusted import quoted, short_name
from .decoder_shape import targeted
from .expert_targets import said_of_experts
from .unpacked_layers import why_no_layers

DROPOUTS = {"attention_dropout": "attention", "resid_pdrop": "residual", "residual_dropout": "residual"}
"""Entries of a config with which a base is trained with dropout."""


def engine_of(spec: TrainingSpec, config: Mapping[str, Any]) -> tuple[EngineName, str]:
    """The engine that trains a spec's model, and why."""
    asked = spec.training.engine
    if asked in ("autograd", "trl", "unsloth"):
        return asked, "asked for"
    engine, why = own_engine(
        config, spec.lora, load_in_4bit=spec.model.load_in_4bit, max_seq_length=spec.data.max_seq_length
    )
    wish = "packed was asked for, but: " if asked == "packed" and engine != "packed" else ""
    return engine, f"{wish}{why}"


def own_engine(
    config: Mapping[str, Any], lora: LoraGroup, *, load_in_4bit: bool, max_seq_length: int
) -> tuple[Literal["packed", "autograd"], str]:
    """packed where the model allows it, else autograd; with the reason in one sentence.

    Args:
        config: the content of config.json.
        max_seq_length: in tokens.
    """
    obstacle = _unknown(config) or why_not_packed(config, lora=lora, max_seq_length=max_seq_length)
    if obstacle is not None:
        return "autograd", obstacle
    expanded = "; 4-bit weights are expanded just before each" if load_in_4bit else ""
    of_experts = said_of_experts(config, lora)
    routed = f"; {of_experts}" if of_experts else ""
    why = f"our own step: no padding, and the LoRA inside the base's matrix products{expanded}{routed}"
    return "packed", why


def _unknown(config: Mapping[str, Any]) -> str | None:
    entries = decoder_entries(config)
    if str(entries.get("model_type")) not in FAMILIES:
        return None
    known = {name: value for name, value in entries.items() if name != "quantization_config"}
    unknown = unknown_entry(known)
    return (
        f"The packed step does not know the entry {quoted(unknown[0])} of config.json." if unknown else None
    )


def why_not_packed(
    config: Mapping[str, Any], *, lora: LoraGroup | None = None, max_seq_length: int = 0
) -> str | None:
    """The reason why the packed step cannot train this model, in one sentence, or None if it can."""
    given = decoder_entries(config)
    family = FAMILIES.get(str(given.get("model_type")))
    if family is None:
        return why_no_layers(given)
    entries = complete_config(given)
    family = family_of(SimpleNamespace(**entries))
    obstacle = _why_not_read(config, entries, family)
    if obstacle:
        return obstacle
    if entries[family.activation] not in ACTIVATIONS:
        return f"The packed step has no {short_name(entries[family.activation])} activation."
    for name, what in DROPOUTS.items():
        if entries.get(name):
            return f"The model is trained with {what} dropout {short_name(entries[name])}."
    kinds = set(entries.get("layer_types") or ()) - {"full_attention", "sliding_attention"}
    if kinds:
        return f"The packed step has no {quoted(min(kinds))} layers."
    ropes = _ropes(entries, family)
    reasons = (_why_not_rotated(rope, entries, family, max_seq_length) for rope in ropes)
    return (
        next(filter(None, reasons), None)
        or _why_not_embedded(entries, family)
        or _why_not_routed(entries, family)
        or _why_not_adapted(lora, family, entries)
    )


def _why_not_embedded(entries: Mapping[str, Any], family: Family) -> str | None:
    """Of the embeddings that tokens have for each layer."""
    if family.token_layer_size is None:
        return None
    known = entries["vocab_size_per_layer_input"]
    if known < entries["vocab_size"]:
        return f"Only {known} of {entries['vocab_size']} tokens have embeddings for each layer."
    return None


def _why_not_routed(entries: Mapping[str, Any], family: Family) -> str | None:
    if family.experts is None:
        return None
    if entries.get("router_jitter_noise"):
        return f"The routers are trained with noise {short_name(entries['router_jitter_noise'])}."
    config = SimpleNamespace(**entries)
    count, width = getattr(config, family.experts.count), getattr(config, family.experts.width)
    if 2 * count * width * config.hidden_size > LARGEST_MATRIX:
        return f"All {count} experts of a layer together are larger than the packed step can address."
    return None


def _why_not_read(config: Mapping[str, Any], entries: Mapping[str, Any], family: Family) -> str | None:
    """`entries` are those of the decoder in the model."""
    inside = MULTIMODAL.get(str(config.get("model_type")))
    ending = "ForConditionalGeneration" if inside else "ForCausalLM"
    architecture = (config.get("architectures") or [ending])[0]
    if not str(architecture).endswith(ending):
        return f"{quoted(architecture)} is not a causal language model."
    stored = config.get("quantization_config")
    if inside and not inside.caps_logits and _changes_logits(entries, family):
        return "The packed step has no capped or scaled logits of multimodal models."
    if family.experts is not None and stored is not None:
        known = is_mxfp4(config) and family.experts.transposed
        return None if known else "The packed step reads no such quantised weights of experts."
    return _why_not_dequantised(stored)


def _changes_logits(entries: Mapping[str, Any], family: Family) -> bool:
    """Whether a decoder does more than its head's product, which transformers leaves out in such a model."""
    config = SimpleNamespace(**entries)
    try:
        return family.logits_cap(config) is not None or family.logits_scale(config) != 1.0
    except (TypeError, ZeroDivisionError):  # no number: transformers has to say so
        return True


def _why_not_dequantised(stored: Mapping[str, Any] | None) -> str | None:
    """`stored` is the config's account of how its weights are quantised."""
    if not stored:
        return None
    method = stored.get("quant_method")
    if method == "bitsandbytes" and stored.get("load_in_4bit") and stored.get("bnb_4bit_quant_type") == "nf4":
        return None
    return f"The base is quantised by {quoted(method)}; the packed step knows only NF4 of bitsandbytes."


def _ropes(entries: Mapping[str, Any], family: Family) -> list[Mapping[str, Any]]:
    """The config's accounts of its rotations; `rope_scaling` of older files is that of full attention."""
    given: Mapping[str, Any] = entries.get("rope_parameters") or {}
    scaling: Mapping[str, Any] = entries.get("rope_scaling") or {}
    if family.rope_by_layer_type:
        return [*(rope for rope in given.values() if isinstance(rope, Mapping)), scaling]
    return [given or scaling]


def _why_not_rotated(
    rope: Mapping[str, Any], config: Mapping[str, Any], family: Family, max_seq_length: int
) -> str | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    kind = "longrope" if kind == "su" or (config["model_type"], kind) == ("phi3", "yarn") else kind
    if kind not in family.ropes:
        return f"The packed step has no {short_name(kind)} rotary scaling."
    part = rope.get("partial_rotary_factor", config.get("partial_rotary_factor"))
    if not family.partial_rotary and part not in (None, 1.0) and kind != "proportional":
        return f"Only {short_name(part)} of each head is rotated."
    if kind == "dynamic" and not rope.get("alpha") and max_seq_length > config["max_position_embeddings"]:
        return f"Dynamic rotary scaling changes beyond {config['max_position_embeddings']} tokens."
    outside = config.get("original_max_position_embeddings")
    given = outside or rope.get("original_max_position_embeddings") or family.original_positions
    original = given if isinstance(given, int | float) else None
    if kind == "longrope" and (original is None or max_seq_length > original):
        return f"LongRoPE's rotary scaling changes beyond {original} tokens."
    if family.original_positions and original and max_seq_length > original:
        return f"Queries are scaled by their position beyond {original} tokens."
    return None


def _why_not_adapted(lora: LoraGroup | None, family: Family, entries: Mapping[str, Any]) -> str | None:
    if lora is None or lora.target_modules == "attention":
        return None
    there = family.targets
    if family.experts is not None:
        there = _present(family, entries)
        dense = set[str]() if family.experts.named_by_peft else set(family.mlp_modules)
        free = {*family.attention_modules, *dense}
        if lora.dropout and set(targeted(lora, family)) & set(there) - free:
            return "PEFT has no dropout for a LoRA outside of attention in a model with experts."
    if lora.target_modules == "all-linear":
        return None
    names = (lora.target_modules,) if isinstance(lora.target_modules, str) else tuple(lora.target_modules)
    unknown = [name for name in names if target_name(name) not in there or not _is_short(name)]
    return f"The packed step has no LoRA on {', '.join(map(short_name, unknown))}." if unknown else None


def _is_short(name: str) -> bool:
    """Whether a target is meant in every layer."""
    return name == target_name(name) or name.endswith(EXPERT_TARGETS)


def _present(family: Family, entries: Mapping[str, Any]) -> tuple[str, ...]:
    """What of a model with experts can have a LoRA: some have neither dense layers nor a shared MLP."""
    assert family.experts is not None
    sizes = expert_sizes(SimpleNamespace(**entries), family.experts)
    if sizes.shared_width or not all(sizes.sparse):
        return family.targets
    return (*family.attention_modules, *EXPERT_TARGETS)
