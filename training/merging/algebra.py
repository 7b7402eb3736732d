"""The three operations of SLAO (Qiao and Mahdavi 2025, arXiv:2512.23017) on LoRA matrices."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
from torch import Tensor

from ..errors import SLAOError, SLAOMergeError
from .lora_pairs import pairs_of, require_same_form

Scaling = Literal["sqrt", "mean"]
Mode = Literal["slao", "simple", "average"]


def time_aware_scale(run_index: int, scaling: Scaling = "sqrt") -> float:
    """λ(i), the share that the i-th task has in the merged B.

    Args:
        run_index: i, from 1.
        scaling: "sqrt" is the paper's 1/√i; with "mean", 1/i, the merged B is the mean of all.

    Raises:
        SLAOError: `run_index` is below 1.
    """
    if run_index < 1:
        raise SLAOError(f"The index of a run is {run_index}; it counts from 1.")
    return 1 / math.sqrt(run_index) if scaling == "sqrt" else 1 / run_index


def orthogonal_init_A(a: Tensor) -> Tensor:
    """The A from which the next task starts: the rows of the last one made orthonormal.

    QᵀQ = I of the QR decomposition of Aᵀ, with the signs of R's diagonal in Q, so that the result does not
    depend on the sign convention of a QR. Computed in float32 (float64 for float64).

    Args:
        a: (r, in_features), r ≤ in_features.

    Returns:
        (r, in_features), in the type of `a`.

    Raises:
        SLAOError: r is larger than in_features.
    """
    if a.ndim != 2 or a.shape[0] > a.shape[1]:
        raise SLAOError(f"A has the shape {tuple(a.shape)}: it cannot have {a.shape[0]} orthogonal rows.")
    wide = a.detach().to(a.dtype if a.dtype == torch.float64 else torch.float32)
    linalg = cast("Any", torch.linalg)  # its functions have no types
    q, r = cast("tuple[Tensor, Tensor]", linalg.qr(wide.T, mode="reduced"))
    signs = torch.where(r.diagonal() < 0, -1.0, 1.0).to(q.dtype)
    return (q * signs).T.to(a.dtype).contiguous()


def merge_lora_weights(
    merged: Mapping[str, Tensor], tuned: Mapping[str, Tensor], scale: float
) -> dict[str, Tensor]:
    """A of the last task, and B moved towards that of the last task: B + λ·(B_tuned - B).

    Computed in float32 (float64 for float64), and rounded once to the type of the weights.

    Args:
        merged, tuned: PEFT's names and matrices, of the same form. Nothing is broadcast.
        scale: λ, 0 to 1.

    Returns:
        The weights; each A is the tensor of `tuned`, each B a new one.

    Raises:
        SLAOMergeError: the weights are no plain LoRA or differ in form, or `scale` is out of bounds.
    """
    if not 0 <= scale <= 1:  # also NaN
        raise SLAOMergeError(f"The scale of a merge is {scale}; 0 to 1 was expected.")
    require_same_form(tuned, merged)
    weights = dict(tuned)
    for pair in pairs_of(tuned):
        weights[pair.b] = _between(merged[pair.b].detach(), tuned[pair.b].detach(), scale)
    return weights


def average_lora_weights(
    merged: Mapping[str, Tensor], tuned: Mapping[str, Tensor], scale: float
) -> dict[str, Tensor]:
    """A and B moved towards those of the last task; with 1/i the mean of i adapters.

    Arguments and errors are those of `merge_lora_weights`.
    """
    weights = merge_lora_weights(merged, tuned, scale)
    for pair in pairs_of(tuned):
        weights[pair.a] = _between(merged[pair.a].detach(), tuned[pair.a].detach(), scale)
    return weights


def _between(before: Tensor, after: Tensor, scale: float) -> Tensor:
    if before.dtype in (torch.float32, torch.float64):
        return torch.lerp(before, after, scale)
    return torch.lerp(before.float(), after.float(), scale).to(before.dtype)
