"""The flat names of settings (`lora_r`, `dataset`), and the names that other tools use for them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypedDict

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from ..untrusted import quoted, short_name
from .specs import GROUPS, InspectSpec, TrainingSpec


class TrainArguments(TypedDict, total=False):
    """The flat names of the training settings, without `model` and `dataset`; the arguments of `Trainer`."""

    revision: str | None
    load_in_4bit: bool
    allow_other_base: bool
    split: str | None
    dataset_revision: str | None
    columns: dict[str, str] | None
    separator: str | None
    encoding: str | None
    samples: int | None
    max_seq_length: int
    train_on: str
    on_bad_rows: str
    dedupe: str
    quality: str
    control_tokens: str
    private_data: str
    merge_system: bool
    order: str
    held_out: float | str
    validation: str | list[str] | None
    lora_r: int
    lora_alpha: int
    lora_dropout: float
    lora_target_modules: str | list[str]
    lora_rslora: bool
    lora_preset: str | None
    steps: int | None
    epochs: float | str
    batch_size: int | str
    gradient_accumulation_steps: int
    learning_rate: float | str
    learning_rate_multiplier: float
    lr_scheduler: str
    warmup_steps: int | None
    weight_decay: float
    max_grad_norm: float
    seed: int
    warmup_ratio: float | None
    engine: str
    recompute: str
    weights: str
    base_precision: str
    micro_batch_tokens: int | None
    checkpoint_every_steps: int | None
    checkpoint_every_s: float
    eval_every: int | None
    patience: int | None
    device: str
    gpus: int | str
    threads: int | None
    on: str | None
    oom_recovery: bool
    report_to: str | list[str]
    preset: str | None
    questions: list[str]
    max_new_tokens: int
    system: str | None
    output: str | None


def flat_name(group: str, field: str) -> str:
    """The flat name of a setting: `lora.r` is `lora_r`, `training.steps` is `steps`."""
    special = {("model", "name"): "model", ("data", "source"): "dataset"}
    return special.get((group, field), f"lora_{field}" if group == "lora" else field)


def given_arguments(spec: TrainingSpec | InspectSpec) -> dict[str, Any]:
    """What was given of the settings that a spec has, by flat name."""
    given = {
        flat_name(group, field): getattr(getattr(spec, group), field)
        for group, model in GROUPS.items()
        if hasattr(spec, group)
        for field in model.model_fields
        if field in getattr(spec, group).model_fields_set
    }
    return {name: value for name, value in given.items() if value is not None}


def flat_fields() -> dict[str, tuple[str, str, FieldInfo]]:
    """Flat name → (group, field, definition), in the order of the spec."""
    return {
        flat_name(group, field): (group, field, info)
        for group, model in GROUPS.items()
        for field, info in model.model_fields.items()
    }


class Alias(NamedTuple):
    """Another tool's name of a setting.

    Args:
        name: the flat name here.
        values: the other tool's values in lower case → the values here; None means "not given".
    """

    name: str
    values: Mapping[str, Any] = MappingProxyType({})

    def value(self, given: Any) -> Any:
        return self.values.get(str(given).lower(), given)


ALIASES = {
    # Hugging Face transformers, PEFT and TRL
    "max_steps": Alias("steps", {"-1": None}),
    "num_train_epochs": Alias("epochs"),
    "per_device_train_batch_size": Alias("batch_size"),
    "gradient_checkpointing": Alias("recompute", {"true": "everything", "false": "nothing"}),
    "lr_scheduler_type": Alias("lr_scheduler", {"constant_with_warmup": "constant"}),
    "lora_rank": Alias("lora_r"),
    "r": Alias("lora_r"),
    "lr": Alias("learning_rate"),
    "target_modules": Alias("lora_target_modules"),
    "use_rslora": Alias("lora_rslora"),
    "max_length": Alias("max_seq_length"),
    "save_steps": Alias("checkpoint_every_steps"),
    "eval_steps": Alias("eval_every"),
    "early_stopping_patience": Alias("patience"),
    # axolotl
    "val_set_size": Alias("held_out"),
    "sequence_len": Alias("max_seq_length"),
    "num_epochs": Alias("epochs"),
    "micro_batch_size": Alias("batch_size"),
    # earlier versions
    "use_unsloth": Alias("engine", {"true": "unsloth", "false": None}),
    "train_on_responses": Alias("train_on", {"true": "assistant", "false": "all"}),
    "gradient_accumulation": Alias("gradient_accumulation_steps"),
}
"""Names of other tools that are accepted for a setting."""


OTHER_NAMES = {other: alias.name for other, alias in ALIASES.items()} | {
    "data": "dataset",  # also a group of settings, so it is not accepted
    "dataset_name": "dataset",
    "dataset_path": "dataset",
    "num_steps": "steps",
    "model_name": "model",
    "model_name_or_path": "model",
}
"""Another tool's name → the argument's name here, for suggestions."""


def explain(
    error: ValidationError, *, prefix: str = "", separator: str = ".", secret: Collection[str] = ()
) -> str:
    """A pydantic error in one line: each argument, the given value and the allowed ones.

    Args:
        secret: names whose values are not shown.
    """
    parts: list[str] = []
    for item in error.errors(include_url=False):
        location = [short_name(part) for part in item["loc"]]
        if prefix:
            name = prefix + separator.join(location[:2]).upper()
        elif len(location) > 1 and location[0] in GROUPS:
            name = flat_name(location[0], location[1])
        else:
            name = location[0] if location else "arguments"
        shown = "what was given" if name in secret else shown_value(item["input"])
        given = "" if item["type"] == "missing" else f", not {shown}"
        sentence = f"{name} is missing" if not given else f"{name}: {wanted_of(item)}{given}"
        if not any(part.startswith(name) for part in parts):
            parts.append(sentence)
    return "; ".join(parts) + "."


def wanted_of(item: ErrorDetails) -> str:
    """What was expected, as part of a sentence."""
    if item["type"] == "union_tag_invalid":  # pydantic's message repeats the value
        return "is of no known kind"
    text = item["msg"].removeprefix("Value error, ").removeprefix("Input ")
    text = text.partition(", unable to")[0].partition(" after validation")[0]  # what was given follows
    return text[:1].lower() + text[1:]


def shown_value(value: object) -> str:
    """A given value for use in a sentence."""
    return quoted(value) if isinstance(value, str) else short_name(repr(value))
