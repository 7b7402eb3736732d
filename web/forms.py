"""Fields of a form, from the one definition of the settings; and what a form says, as arguments.

A field that is left empty is not given, and its default holds, which the field shows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from ..training.config.arguments import flat_name
from ..training.config.settings import Settings
from ..training.config.specs import GROUPS
from ..training.errors import InputError
from ..training.untrusted import quoted

LINES = ("dataset", "tasks", "questions", "prompts")
"""Settings whose values stand on lines of their own."""
FORM_TOKEN = "csrf"
"""A field that is in every form that was sent."""
LABELS = {
    "lora_r": "LoRA rank",
    "lora_alpha": "LoRA alpha",
    "lora_dropout": "LoRA dropout",
    "lora_target_modules": "LoRA target modules",
    "lora_rslora": "Rank-stabilized LoRA",
    "load_in_4bit": "Load the base in 4 bits (QLoRA)",
    "merge_system": "System message into the first user message",
    "allow_other_base": "Accept a changed base model",
    "compare_base": "Also answer without the adapter",
    "num_runs": "Number of runs",
    "max_seq_length": "Maximum sequence length",
    "on_bad_rows": "Unusable rows",
    "dedupe": "Duplicate rows",
    "lr_scheduler": "Learning-rate schedule",
    "max_grad_norm": "Maximum gradient norm",
    "checkpoint_every_s": "Seconds between checkpoints",
    "checkpoint_every_steps": "Steps between checkpoints",
    "eval_every": "Steps between evaluations",
    "max_new_tokens": "Maximum tokens per answer",
    "imatrix": "Importance matrix",
    "train_on": "Learn from",
    "prompts": "Questions",
}


@dataclass(frozen=True)
class FormField:
    """One field.

    Args:
        kind: `number`, `text`, `select`, `check` or `lines`.
        unset: what holds if it is left empty.
        value: what it holds now.
    """

    name: str
    label: str
    help: str = ""
    kind: str = "text"
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    whole: bool = False
    unset: str = ""
    value: str = ""
    required: bool = False
    shape: str = ""  # `list` or `object`, of a value that is written as text


def setting_fields(
    names: Iterable[str], defaults: Settings, given: Mapping[str, str] | None = None
) -> list[FormField]:
    """Fields of training settings by their flat names; names that no setting has are left out.

    Args:
        given: what the form holds already; None: what the settings say.
    """
    known = _flat()
    return [
        _filled(known[name][2], _default(defaults, *known[name][:2]), given)
        for name in names
        if name in known
    ]


def group_fields(
    group: type[BaseModel], names: Iterable[str], given: Mapping[str, str] | None = None
) -> list[FormField]:
    """Fields of a group or a spec that belongs to one page only."""
    fields = _fields_of(group)
    defaults = {name: info.get_default() for name, info in group.model_fields.items()}
    return [
        _filled(fields[name], None if defaults[name] is PydanticUndefined else defaults[name], given)
        for name in names
    ]


def all_names(*groups: str) -> list[str]:
    """The flat names of the settings in these groups; without groups, of all."""
    return [name for name, (group, _, _) in _flat().items() if not groups or group in groups]


def by_name(fields: Iterable[FormField]) -> dict[str, FormField]:
    return {field.name: field for field in fields}


def values_of(form: Mapping[str, str], fields: Iterable[FormField]) -> dict[str, Any]:
    """What the form says, by name; what is left empty is not in it.

    Raises:
        InputError: a field that holds names and values has none.
    """
    found: dict[str, Any] = {}
    for field in fields:
        text = form.get(field.name, "").strip()
        if field.kind == "check":
            if text != field.unset:
                found[field.name] = text == "on"
        elif text:
            found[field.name] = _value(field, text)
    return found


def _value(field: FormField, text: str) -> Any:
    if field.kind == "lines":
        return [line.strip() for line in text.splitlines() if line.strip()]
    if field.shape == "object":
        return _object(field.name, text)
    is_word = text in field.choices or not field.choices  # a word of its own, such as `none`
    if field.shape == "list" and ("," in text or not is_word):
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _object(name: str, text: str) -> dict[str, str]:
    """`prompt=Frage, completion=Antwort`, or the same as JSON."""
    try:
        found: Any = json.loads(text) if text.startswith("{") else None
    except ValueError:
        found = None
    if isinstance(found, dict):
        return found  # pyright: ignore[reportUnknownVariableType]
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(left.strip() and right.strip() for left, _, right in pairs):
        raise InputError(
            f"{name}: {quoted(text)} has no name or no value.", hint="Write prompt=Frage,completion=Antwort."
        )
    return {left.strip(): right.strip() for left, _, right in pairs}


def as_text(value: Any) -> str:
    """A value as a form holds it."""
    match value:
        case None:
            return ""
        case bool():
            return "on" if value else ""
        case list():
            return "\n".join(map(str, value))  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        case dict():
            return json.dumps(value, ensure_ascii=False)
        case _:
            return str(value)


def _filled(field: FormField, default: Any, given: Mapping[str, str] | None) -> FormField:
    unset = as_text(default)
    if field.kind == "check":
        is_sent = given is not None and FORM_TOKEN in given  # else it only fills some fields in
        value = (given or {}).get(field.name, "" if is_sent else unset)
        return replace(field, unset=unset, value="on" if value == "on" else "")
    return replace(field, unset=unset, value=(given or {}).get(field.name, ""))


def _default(defaults: Settings, group: str, field: str) -> Any:
    return getattr(getattr(defaults, group), field)


@cache
def _flat() -> dict[str, tuple[str, str, FormField]]:
    """Flat name → group, its field, and the form's field."""
    return {
        flat_name(group, name): (group, name, _named(flat_name(group, name), field))
        for group, model in GROUPS.items()
        for name, field in _fields_of(model).items()
    }


@cache
def _fields_of(group: type[BaseModel]) -> dict[str, FormField]:
    """Name → field, from the group's JSON schema."""
    schema = group.model_json_schema()
    return {name: _field(name, part) for name, part in schema["properties"].items()}


def _named(name: str, field: FormField) -> FormField:
    kind = "lines" if name in LINES else field.kind
    return replace(field, name=name, label=LABELS.get(name, _label(name)), kind=kind)


def _label(name: str) -> str:
    return LABELS.get(name) or name.replace("_", " ").capitalize()


def _field(name: str, schema: Mapping[str, Any]) -> FormField:
    variants = [part for part in schema.get("anyOf", [schema]) if part.get("type") != "null"]
    first = variants[0] if variants else schema
    kinds = {part.get("type") for part in variants}
    whole = first.get("type") == "integer"
    return FormField(
        name,
        _label(name),
        (schema.get("description") or first.get("description", "")).replace("`", ""),
        _kind(name, first, kinds),
        tuple(first.get("enum", ())),
        first.get("minimum", first.get("exclusiveMinimum")),
        first.get("maximum", first.get("exclusiveMaximum")),
        whole,
        shape="object" if "object" in kinds else "list" if "array" in kinds else "",
    )


def _kind(name: str, first: Mapping[str, Any], kinds: set[Any]) -> str:
    if name in LINES:
        return "lines"
    if "enum" in first and "array" not in kinds:
        return "select"
    if kinds == {"boolean"}:
        return "check"
    return "number" if kinds and kinds <= {"integer", "number"} else "text"
