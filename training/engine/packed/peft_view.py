"""The decoder's own weights as a transformers model with PEFT's LoRA, to generate with: nothing is copied."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from ..autograd.peft_lora import adapt, bind_lora
from ..plan import Plan
from .decoder import PackedDecoder
from .load_weights import destinations


def peft_view(decoder: PackedDecoder, plan: Plan) -> Any:
    """A PEFT model whose base weights and LoRA matrices are views into the buffers of `decoder`."""
    model, _, _ = adapt(_base_view(decoder, plan), plan.lora)
    bind_lora(model, decoder.lora)
    return model.eval()


def _base_view(decoder: PackedDecoder, plan: Plan) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM  # untyped in transformers
    config = cast("Any", AutoConfig.from_pretrained(plan.model, local_files_only=True))  # pyright: ignore[reportUnknownMemberType]
    with torch.device("meta"):
        model: Any = auto.from_config(config, dtype=decoder.dtype)
    for name, view in destinations(decoder).items():
        module, _, kind = name.rpartition(".")
        setattr(model.get_submodule(module), kind, nn.Parameter(view, requires_grad=False))
    if decoder.config.tie_word_embeddings:
        model.get_output_embeddings().weight = model.get_input_embeddings().weight
    # Its frequencies are in no checkpoint: from_pretrained computes them too, in fp32 whatever the dtype.
    rotary = model.model.rotary_emb
    model.model.rotary_emb = type(rotary)(config=config).to(decoder.device)
    model.generation_config = _generation_config(plan, model)
    return model


def _generation_config(plan: Plan, model: Any) -> Any:
    from transformers import GenerationConfig

    if not (plan.model / "generation_config.json").is_file():
        return model.generation_config
    return GenerationConfig.from_pretrained(plan.model, local_files_only=True)  # pyright: ignore[reportUnknownMemberType]
