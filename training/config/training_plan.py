"""The plan of a training, as tools, commands and programs get it; `training/planning/` makes it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from ..next_step import Next

Fit = Literal["yes", "with load_in_4bit=true", "too large"]
"""Whether a model can be fine-tuned on a machine."""


class TrainingPlan(BaseModel):
    """How a training would run.

    Args:
        fits: whether it fits what is free now.
        possible: whether it fits the machine if nothing else runs on it.
        data: the examples, and where that is known from.
        settings: what each setting would be.
        reasons: why, by the name of the setting.
        memory_gib: the peak by part.
        peak_gib: their sum; `free_gib` is what there is.
        tokens_per_s, hours: None where nothing is known.
        speed_from, peak_from: how sure they are.
        disk_gb: what is written, by part.
        would_fit: what else would fit this machine.
        next: the training with these settings, or with those that fit.
    """

    model_config = ConfigDict(frozen=True, defer_build=True)

    fits: bool
    possible: bool
    why_not: str | None = None
    model: str
    model_from: str
    billions: float
    device: str
    data: str
    settings: dict[str, Any]
    reasons: dict[str, str]
    memory_gib: dict[str, float]
    peak_gib: float
    free_gib: float
    peak_from: str
    tokens_per_s: float | None
    speed_from: str
    hours: float | None
    disk_gb: dict[str, float]
    would_fit: list[str]
    notes: list[str]
    next: Next
