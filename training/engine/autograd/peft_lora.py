"""PEFT's LoRA on a transformers base, its matrices in our flat buffer, with our initial values."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

from ...errors import InputError
from ..loop.lora_parameters import LoraModule, LoraParameters
from ..peft_adapter import AdapterDescription, load_adapter
from ..plan import Plan
from .base_model import load_base, lora_targets, shortest_names

PEFT_PREFIX = "base_model.model."


class Adapted(NamedTuple):
    """A PEFT model, the buffer that its LoRA lies in, and what its adapter's config says."""

    model: Any
    lora: LoraParameters
    adapter: AdapterDescription


def load_adapted(plan: Plan) -> Adapted:
    """The model of `plan` with a new LoRA, or the one that it continues from.

    A new one is the same as the packed engine's: A follows from the seed and the module's name.

    Raises:
        ModelLoadError: the model cannot be loaded.
        InputError: the adapter to continue from does not fit, or a target module does not exist.
    """
    from peft import LoraConfig, get_peft_model

    model = load_base(plan)
    targets = lora_targets(model, plan.lora)
    names = shortest_names(model, targets)
    transposed = any(not isinstance(model.get_submodule(name), nn.Linear) for name in targets)
    config = LoraConfig(
        r=plan.lora.r,
        lora_alpha=plan.lora.alpha,
        lora_dropout=plan.lora.dropout,
        use_rslora=plan.lora.rslora,
        target_modules=list(names),
        fan_in_fan_out=transposed,
        task_type="CAUSAL_LM",
    )
    try:
        adapted = get_peft_model(model, config)
    except ValueError as error:
        raise InputError(f"PEFT refuses these target modules: {error}", cause=error) from error
    lora = flatten_lora(adapted, plan.lora.r, torch.device(plan.device))
    lora.initialise(plan.training.seed)
    if plan.continue_from is not None:
        load_adapter(plan.continue_from, lora, plan.lora)
    base_model = plan.base_model_name or str(plan.model)
    return Adapted(adapted, lora, AdapterDescription(plan.lora, base_model, names, transposed))


def flatten_lora(model: Any, rank: int, device: torch.device) -> LoraParameters:
    """Move PEFT's LoRA matrices, values and gradients, into one flat buffer.

    Raises:
        InputError: a target is no linear module.
    """
    a_parts = {
        name.removeprefix(PEFT_PREFIX).removesuffix(".lora_A.default.weight"): parameter
        for name, parameter in model.named_parameters()
        if name.endswith(".lora_A.default.weight")
    }
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not name.endswith(
            (".lora_A.default.weight", ".lora_B.default.weight")
        ):
            raise InputError(f"{name} cannot be trained: only linear modules can have a LoRA.")
    groups = [
        (LoraModule(name, a.shape[1], model.get_parameter(_peft_name(name, "B")).shape[0]),)
        for name, a in a_parts.items()
    ]
    lora = LoraParameters(groups, rank, device)
    gradients = lora.matrices(lora.gradients)
    for name, value in lora.matrices(lora.values).items():
        module, _, which = name.rpartition(".lora_")
        parameter = model.get_parameter(_peft_name(module, which))
        parameter.data = value
        parameter.grad = gradients[name]
    return lora


def _peft_name(module: str, which: str) -> str:
    return f"{PEFT_PREFIX}{module}.lora_{which}.default.weight"
