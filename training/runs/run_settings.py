"""The settings of a training as it carries them out: those of its request, with what its plan decided."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config.arguments import flat_fields
from ..config.specs import MultiGroup, MultiRunSpec, TrainingSpec

ALWAYS = (
    *("lora_r", "lora_alpha", "learning_rate", "batch_size", "gradient_accumulation_steps"),
    *("steps", "epochs", "max_seq_length", "seed"),
)
"""What is told of every training."""
OF_MACHINE = {"engine", "recompute", "weights", "micro_batch_tokens", "device", "threads"}
"""What a plan decides by the machine, and other parts of a result tell."""
ELSEWHERE = {"model", "dataset", "questions"}
"""What a run shows in other places."""


def settings_of(spec: TrainingSpec, plan: Mapping[str, Any] | None) -> dict[str, Any]:
    """Every setting by its flat name.

    Args:
        plan: plan.json; None before the run has decided.
    """
    settings = {
        name: _decided(getattr(getattr(spec, group), field), group, field, plan or {})
        for name, (group, field, _) in flat_fields().items()
        if name not in ELSEWHERE
    }
    if settings["steps"] is not None:
        del settings["epochs"]  # steps override them
    if isinstance(spec, MultiRunSpec):
        settings |= spec.multi.model_dump(mode="json")
    return settings


def _decided(asked: Any, group: str, field: str, plan: Mapping[str, Any]) -> Any:
    values = plan.get("lora", {}) if group == "lora" else plan
    return values.get(field, asked) if asked in (None, "auto") else asked


def telling(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are always told, and those that are not the default."""
    fields = {name: info.default for name, (_, _, info) in flat_fields().items()}
    defaults = fields | {name: info.default for name, info in MultiGroup.model_fields.items()}
    shown = settings.keys() - OF_MACHINE
    return {
        name: value
        for name, value in settings.items()
        if name in shown and value is not None and (name in ALWAYS or value != defaults[name])
    }
