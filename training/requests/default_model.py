"""The model of a request that names none: one that this machine can train."""

from __future__ import annotations

from typing import Literal

from ..models.presets import AUTO, PRESETS

OPEN = ("qwen2.5-7b", "smollm3-3b", "qwen3-1.7b", "qwen3-0.6b")
"""Presets that anyone may download, the largest first."""
ON_CPU = "smollm2-135m"


def model_or_default(name: str, device: Literal["auto", "cpu", "cuda"] = "auto") -> str:
    """`name`, or the Hub id of the default model of this machine for `auto`."""
    return name if name != AUTO else PRESETS[_preset(device)].hub_id


def _preset(device: Literal["auto", "cpu", "cuda"]) -> str:
    from ..planning.fits import fits_comfortably  # here: a server starts sooner
    from ..planning.machine import machine_or_cpu
    from ..planning.model_facts import preset_shape

    machine = machine_or_cpu("cpu" if device == "cpu" else "auto")
    return next((preset for preset in OPEN if fits_comfortably(preset_shape(preset), machine)), ON_CPU)
