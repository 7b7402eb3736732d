"""A plain PEFT adapter, written from and read into the flat LoRA buffer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ..config.specs import LoraGroup
from ..errors import InputError
from ..models.plain_lora import beyond_plain_lora
from ..untrusted import quoted, shown_path
from .lora_parameters import LoraParameters, lora_scale

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
PREFIX = "base_model.model."


@dataclass(frozen=True)
class AdapterDescription:
    """What adapter_config.json says besides the matrices."""

    lora: LoraGroup
    base_model: str
    target_modules: tuple[str, ...]
    target_parameters: tuple[str, ...] = ()
    fan_in_fan_out: bool = False
    """Whether the base stores its weights transposed, as GPT-2 does."""


def named_matrices(lora: LoraParameters) -> dict[str, Tensor]:
    """The matrices under PEFT's names, as views into the buffer."""
    return {f"{PREFIX}{name}.weight": matrix for name, matrix in lora.matrices(lora.values).items()}


def adapter_files(lora: LoraParameters, description: AdapterDescription) -> dict[str, bytes]:
    """The two files of a PEFT adapter."""
    tensors = {name: matrix.detach().cpu().contiguous() for name, matrix in named_matrices(lora).items()}
    config = json.dumps(_config(description), indent=2, sort_keys=True)
    return {WEIGHTS: save(tensors, {"format": "pt"}), CONFIG: config.encode()}


def _config(description: AdapterDescription) -> dict[str, Any]:
    settings = description.lora
    parameters = list(description.target_parameters)
    return {
        "base_model_name_or_path": description.base_model,
        "bias": "none",
        "fan_in_fan_out": description.fan_in_fan_out,
        "inference_mode": True,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        "peft_type": "LORA",
        "r": settings.r,
        "target_modules": list(description.target_modules),
        **({"target_parameters": parameters} if parameters else {}),
        "task_type": "CAUSAL_LM",
        "use_rslora": settings.rslora,
    }


def load_adapter(folder: Path, lora: LoraParameters, settings: LoraGroup) -> None:
    """Take over the matrices of a PEFT adapter, to train them further.

    Raises:
        InputError: the folder holds no LoRA adapter, or one of another rank, scale or set of modules.
    """
    try:
        config = cast("dict[str, Any]", json.loads((folder / CONFIG).read_text("utf-8")))
        numbers = config["r"], config["lora_alpha"]
        if not all(isinstance(number, int | float) for number in numbers):
            raise ValueError(f"r and lora_alpha: {numbers}")
        theirs = LoraGroup.model_construct(
            r=numbers[0], alpha=numbers[1], rslora=bool(config.get("use_rslora"))
        )
        tensors = load((folder / WEIGHTS).read_bytes())
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise InputError(
            f"{shown_path(folder)} holds no LoRA adapter that can be read: {type(error).__name__}.",
            cause=error,
            untrusted=str(error),
        ) from error
    # How the base stores its weights; what is targeted is compared below.
    more = beyond_plain_lora({**config, "fan_in_fan_out": False, "target_parameters": None})
    if more:
        raise InputError(f"The adapter in {shown_path(folder)} is not plain LoRA: it has {more}.")
    _check_scale(folder, theirs, settings)
    load_into_buffer(folder, tensors, lora)


def _check_scale(folder: Path, theirs: LoraGroup, ours: LoraGroup) -> None:
    if theirs.r != ours.r:
        raise InputError(
            f"The adapter in {shown_path(folder)} has rank {theirs.r}, not {ours.r}.",
            hint=f"Set lora_r={theirs.r}.",
        )
    if lora_scale(theirs) != lora_scale(ours):
        raise InputError(
            f"The adapter in {shown_path(folder)} is scaled by {lora_scale(theirs):g}, "
            f"not {lora_scale(ours):g}.",
            hint=f"Set lora_alpha={theirs.alpha}{' and use rank stabilisation' if theirs.rslora else ''}.",
        )


def load_into_buffer(folder: Path, tensors: dict[str, Tensor], lora: LoraParameters) -> None:
    """Copy the tensors of an adapter's file into the flat buffer.

    Raises:
        InputError: they are of other modules or shapes than the buffer's.
    """
    places = named_matrices(lora)
    different = sorted(places.keys() ^ tensors.keys())
    if different:
        side = "lacks" if different[0] in places else "also has"
        raise InputError(
            f"The adapter in {shown_path(folder)} is of other modules: it {side} {quoted(different[0])}.",
            hint="Set target_modules as the adapter has them.",
        )
    for name, place in places.items():
        if tensors[name].shape != place.shape:
            raise InputError(
                f"{quoted(name)} in {shown_path(folder)} has shape {tuple(tensors[name].shape)}, "
                f"not {tuple(place.shape)}."
            )
        place.copy_(tensors[name])
