"""The numbers of a run as they move: what a dashboard draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...training.hardware.gpu import GpuReading
from ...training.runs.folder import Status
from ...training.runs.loss_curve import LossCurve, LossPoint
from ...training.runs.view import RunView
from ..few_digits import short

GPU_SHOWN = {"index", "name", "memory_used_mib", "memory_total_mib", "temperature_c"}


def metrics_of(view: RunView, curve: LossCurve, since: int, gpus: Sequence[GpuReading]) -> dict[str, Any]:
    """The run's status, and the points that are newer than event `since`.

    A point whose step is not after the one before it replaces all from that step on: the run was resumed.
    """
    losses, evals = _newer(curve.losses, since), _newer(curve.evals, since)
    told = short(
        {
            "run_id": view.run_id,
            "kind": view.kind,
            "model": view.model,
            "status": view.status.value,
            "phase": view.phase,
            "step": view.step,
            "total_steps": view.total_steps,
            "eta_s": view.eta_s,
            "tokens_per_s": view.tokens_per_s if view.status is Status.RUNNING else None,
            "gpus": [gpu.model_dump(include=GPU_SHOWN) for gpu in gpus],
            "warnings": view.warnings,
            "runs_begin": [*curve.begins],
        }
    )
    return {
        **told,
        "seq": curve.seq,
        "steps": [point.step for point in losses],
        "losses": [_number(point.loss) for point in losses],
        "eval_steps": [point.step for point in evals],
        "eval_losses": [_number(point.loss) for point in evals],
    }


def _newer(points: Sequence[LossPoint], since: int) -> list[LossPoint]:
    return [point for point in points if point.seq > since]


def _number(loss: float) -> float | None:
    """JSON has no infinity."""
    return short(loss) if math.isfinite(loss) else None
