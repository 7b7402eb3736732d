"""Checks of LoRA weights before they are merged: names, shapes, types and every value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor

from ..errors import SLAOMergeError
from ..untrusted import quoted

LORA_A, LORA_B = ".lora_A.", ".lora_B."
FLOATS = frozenset({torch.float64, torch.float32, torch.bfloat16, torch.float16})
FORM_OF_CONFIG = (
    "r", "lora_alpha", "use_rslora", "target_modules", "rank_pattern", "alpha_pattern", "fan_in_fan_out",
    "base_model_name_or_path",
)  # fmt: skip
"""Entries of adapter_config.json in which adapters must be equal to be merged."""


class Pair(NamedTuple):
    """The names of a module's two matrices.

    Args:
        a: of A, (r, in_features).
        b: of B, (out_features, r).
    """

    a: str
    b: str


def pairs_of(weights: Mapping[str, Tensor]) -> list[Pair]:
    """The pairs of matrices in the weights of a plain LoRA, checked.

    Args:
        weights: PEFT's names, e.g. `….q_proj.lora_A.weight`, and the matrices.

    Raises:
        SLAOMergeError: there are none, one has no partner or is no LoRA matrix, the ranks of two partners
            differ, or a matrix has another type than floats.
    """
    pairs: list[Pair] = []
    for name in weights:
        if LORA_A in name:
            pairs.append(_pair(name, weights))
        elif LORA_B not in name:
            raise SLAOMergeError(
                f"{quoted(name)} is not a matrix of a plain LoRA.",
                hint="Merge adapters with lora_A and lora_B only.",
            )
    if not pairs:
        raise SLAOMergeError("The weights have no LoRA matrices.")
    if len(weights) != 2 * len(pairs):
        known = {name for pair in pairs for name in pair}
        alone = next(name for name in weights if name not in known)
        raise SLAOMergeError(f"{quoted(alone)} has no lora_A beside it.")
    return pairs


def _pair(name: str, weights: Mapping[str, Tensor]) -> Pair:
    other = name.replace(LORA_A, LORA_B)
    if other not in weights:
        raise SLAOMergeError(f"{quoted(name)} has no lora_B beside it.")
    a, b = weights[name], weights[other]
    if a.ndim != 2 or b.ndim != 2 or a.shape[0] != b.shape[1]:
        raise SLAOMergeError(
            f"{quoted(name)} has the shape {tuple(a.shape)} and its B {tuple(b.shape)}; "
            "(r, in_features) and (out_features, r) were expected."
        )
    if a.dtype not in FLOATS or b.dtype not in FLOATS:
        raise SLAOMergeError(f"{quoted(name)} or its B is {a.dtype} or {b.dtype}, not a floating-point type.")
    return Pair(name, other)


def require_finite(weights: Mapping[str, Tensor]) -> None:
    """Look at every value.

    Raises:
        SLAOMergeError: one is NaN or infinite.
    """
    for name, tensor in weights.items():
        # The extremes are NaN if a value is, and need no memory of their own.
        least, most = torch.aminmax(tensor)
        if not (torch.isfinite(least) and torch.isfinite(most)):
            raise SLAOMergeError(
                f"{quoted(name)} has values that are NaN or infinite.",
                hint="The training diverged; use a smaller learning rate.",
            )


def require_same_form(weights: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> None:
    """Compare names, shapes and types of two adapters.

    Raises:
        SLAOMergeError: they differ; nothing is broadcast or converted.
    """
    different = sorted(weights.keys() ^ others.keys())
    if different:
        side = "lack" if different[0] in others else "also have"
        raise SLAOMergeError(
            f"The weights {side} {quoted(different[0])}; both adapters need the same modules."
        )
    for name, tensor in weights.items():
        other = others[name]
        if tensor.shape != other.shape or tensor.dtype != other.dtype:
            raise SLAOMergeError(
                f"{quoted(name)} is {tuple(tensor.shape)} {tensor.dtype}, in the merged adapter "
                f"{tuple(other.shape)} {other.dtype}."
            )


def form_of(config: Mapping[str, object]) -> dict[str, object]:
    """The entries of an adapter_config.json in which adapters must be equal; lists in order."""
    return {name: _in_order(config[name]) for name in FORM_OF_CONFIG if config.get(name)}


def _in_order(value: object) -> object:
    return sorted(map(str, cast("list[object]", value))) if isinstance(value, list | set) else value


def require_same_config(form: Mapping[str, object], other: Mapping[str, object]) -> None:
    """Compare two results of `form_of`.

    Raises:
        SLAOMergeError: rank, alpha, modules or base differ.
    """
    for name in FORM_OF_CONFIG:
        if form.get(name) != other.get(name):
            raise SLAOMergeError(
                f"The adapters differ in {name}: {quoted(other.get(name))} and {quoted(form.get(name))}.",
                hint="Train all tasks with the same rank, alpha and modules, on the same base.",
            )
