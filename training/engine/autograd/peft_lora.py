"""PEFT's LoRA on a transformers base, its matrices in our flat buffer, with our initial values."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from ...config.specs import LoraGroup
from ...errors import InputError
from ...untrusted import quoted, short_name
from ..lora_parameters import LoraModule, LoraParameters
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
    model, names, transposed = adapt(load_base(plan), plan.lora)
    lora = flatten_lora(model, plan.lora.r, torch.device(plan.device))
    lora.initialise(plan.training.seed)
    if plan.continue_from is not None:
        load_adapter(plan.continue_from, lora, plan.lora)
    base_model = plan.base_model_name or str(plan.model)
    description = AdapterDescription(plan.lora, base_model, names, fan_in_fan_out=transposed)
    return Adapted(model, lora, description)


def adapt(base: Any, settings: LoraGroup) -> tuple[Any, tuple[str, ...], bool]:
    """`base` with PEFT's LoRA, the names of its targets, and whether their weights are transposed.

    PEFT takes some names in a mixture of experts for its fused experts, also where linear modules of dense
    layers or shared experts bear them. Experts are parameters, which our buffer cannot hold, and PEFT could
    not load a LoRA of these modules: they get none.

    Raises:
        InputError: a target module does not exist, or PEFT cannot adapt it.
    """
    targets = lora_targets(base, settings)
    transposed = any(not isinstance(base.get_submodule(name), nn.Linear) for name in targets)
    names = shortest_names(base, targets)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a config that is not kept where PEFT warns
        model = peft_model(base, settings, names, transposed=transposed)
    config = model.peft_config["default"]
    if not config.target_parameters:
        return model, names, transposed
    kept = tuple(sorted(config.target_modules))
    if settings.target_modules not in ("all-linear", "attention") or not kept:
        raise InputError(
            f"PEFT takes {', '.join(map(short_name, sorted(set(names) - set(kept))))} for the experts of "
            "this model, which cannot have a LoRA here.",
            hint='Leave them out of lora_target_modules, or use "all-linear".' if kept else None,
        )
    return peft_model(model.unload(), settings, kept, transposed=transposed), kept, transposed


def peft_model(
    base: Any,
    settings: LoraGroup,
    modules: Sequence[str],
    parameters: Sequence[str] = (),
    *,
    transposed: bool = False,
) -> Any:
    """`base` with PEFT's LoRA on these modules and parameters.

    Raises:
        InputError: PEFT refuses them.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        use_rslora=settings.rslora,
        target_modules=list(modules),
        target_parameters=list(parameters) or None,
        fan_in_fan_out=transposed,
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(base, config)
    except ValueError as error:
        raise InputError(
            f"PEFT refuses these target modules: {type(error).__name__}.", cause=error, untrusted=str(error)
        ) from error


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
            raise InputError(f"{quoted(name)} cannot be trained: only linear modules can have a LoRA.")
    groups = [
        (LoraModule(name, a.shape[1], model.get_parameter(_peft_name(name, "B")).shape[0]),)
        for name, a in a_parts.items()
    ]
    lora = LoraParameters(groups, rank, device)
    bind_lora(model, lora)
    return lora


def bind_lora(model: Any, lora: LoraParameters) -> None:
    """Let PEFT's LoRA matrices, values and gradients, be views into the buffers of `lora`."""
    gradients = lora.matrices(lora.gradients)
    for name, value in lora.matrices(lora.values).items():
        module, _, which = name.rpartition(".lora_")
        parameter = model.get_parameter(_peft_name(module, which))
        parameter.data = value
        parameter.grad = gradients[name]


def _peft_name(module: str, which: str) -> str:
    return f"{PEFT_PREFIX}{module}.lora_{which}.default.weight"
