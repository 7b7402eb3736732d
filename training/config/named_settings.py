"""Presets: the values of several settings under one name. A setting that is given itself wins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .arguments import flat_fields

TRAINING_PRESETS: dict[str, dict[str, Any]] = {
    "fast": {
        "lora_r": 8,
        "lora_alpha": 16,
        "batch_size": 2,
        "gradient_accumulation_steps": 4,
        "learning_rate": 5e-4,
        "warmup_steps": 5,
    },
    "fast-3b": {
        "lora_r": 8,
        "lora_alpha": 16,
        "batch_size": 4,
        "gradient_accumulation_steps": 2,
        "learning_rate": 5e-4,
        "warmup_steps": 5,
    },
    "balanced": {
        "lora_r": 16,
        "lora_alpha": 32,
        "batch_size": 2,
        "gradient_accumulation_steps": 8,
        "learning_rate": 2e-4,
        "warmup_steps": 10,
    },
    "quality": {
        "lora_r": 32,
        "lora_alpha": 64,
        "batch_size": 4,
        "gradient_accumulation_steps": 8,
        "learning_rate": 1e-4,
        "warmup_steps": 20,
    },
}
"""Preset → flat name → value."""

LORA_PRESETS: dict[str, dict[str, Any]] = {
    "fast": {"lora_r": 16, "lora_alpha": 32, "lora_target_modules": ["q_proj", "v_proj"]},
    "balanced": {"lora_r": 64, "lora_alpha": 128, "lora_target_modules": "all-linear"},
    "quality": {"lora_r": 256, "lora_alpha": 512, "lora_target_modules": "all-linear"},
}
"""The same, of the adapter's form alone."""

MULTI_RUN_PRESETS: dict[str, dict[str, Any]] = {
    "fast": {"num_runs": 3, "steps_per_run": 50},
    "fast-3b": {"num_runs": 3, "steps_per_run": 50},
    "balanced": {"num_runs": 5, "steps_per_run": 100},
    "quality": {"num_runs": 10, "steps_per_run": 200, "replay": 0.1},
}
"""What a training preset says of a multi-run besides; the rows are divided equally."""


def with_named_values(groups: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The settings by group, with the values of their presets where they give none themselves."""
    fields = flat_fields()
    named: dict[str, dict[str, Any]] = {group: {} for group in groups}
    for of_group, presets in (("training", TRAINING_PRESETS), ("lora", LORA_PRESETS)):
        name = groups[of_group].get("preset")
        for flat, value in presets.get(str(name), {}).items():
            group, field, _ = fields[flat]
            named[group][field] = value
    return {group: {**named[group], **given} for group, given in groups.items()}
