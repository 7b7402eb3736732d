"""The parts of the reference pages in docs/, made from the definitions that they tell of."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from enum import Enum
from inspect import cleandoc
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from mcp.types import Tool
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

import backpropagate
from backpropagate.cli.options import NAMES, description_of
from backpropagate.training.config.arguments import ALIASES, flat_fields
from backpropagate.training.config.settings import ENV_PREFIX, environment_names
from backpropagate.training.config.specs import LoraGroup
from backpropagate.training.error_catalogue import catalogue
from backpropagate.training.errors import error_classes
from backpropagate.training.models.presets import PRESETS
from backpropagate.training.planning.fits import Least, least
from backpropagate.training.planning.machine import Machine
from backpropagate.training.planning.memory import GIB
from backpropagate.training.planning.memory_choice import SLACK, TOKENS, training_memory
from backpropagate.training.planning.model_facts import preset_shape

CARDS = (8, 12, 16, 24, 80)
"""GiB of usual GPUs."""
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "min_length": "length ≥", "max_length": "length ≤"}


# --- Settings ---
def setting_tables() -> list[str]:
    """A table for each group of a run's settings."""
    lines: list[str] = []
    groups = dict.fromkeys(group for group, _, _ in flat_fields().values())
    for group in groups:
        lines += [
            "",
            f"### {group}",
            "",
            "| setting | option | values | default | |",
            "|---|---|---|---|---|",
        ]
        lines += [
            row(f"`{name}`", f"`{option(name)}`", values(info), default(info), description_of(info))
            for name, (of, _, info) in flat_fields().items()
            if of == group
        ]
    return lines[1:]


def option(name: str) -> str:
    return NAMES.get(name, [f"--{name.replace('_', '-')}"])[0]


def process_table() -> list[str]:
    """The environment variables that are no setting of a run."""
    of_runs = {f"{ENV_PREFIX}{group}__{field}".upper() for group, field, _ in flat_fields().values()}
    return [
        "| variable | values | default | |",
        "|---|---|---|---|",
        *(
            row(f"`{name}`", values(info), default(info), description_of(info))
            for name, info in environment_names().items()
            if name not in of_runs
        ),
    ]


def alias_table() -> list[str]:
    rows = [row(f"`{other}`", f"`{alias.name}`") for other, alias in ALIASES.items()]
    return ["| also accepted | is |", "|---|---|", *rows]


def values(info: FieldInfo) -> str:
    """The type with its bounds, for people."""
    bounds = [
        f"{sign} {getattr(extra, bound)}"
        for extra in info.metadata
        for bound, sign in BOUNDS.items()
        if getattr(extra, bound, None) is not None
    ]
    return " ".join([kind_of(info.annotation), *bounds])


def kind_of(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    if annotation is type(None):
        return ""
    inner = getattr(annotation, "__origin__", annotation)
    extras = getattr(annotation, "__metadata__", ())
    if extras:
        found = next((extra for extra in extras if isinstance(extra, FieldInfo)), None)
        return values(FieldInfo.merge_field_infos(found, annotation=inner)) if found else kind_of(inner)
    if get_args(annotation) and inner not in (list, dict, tuple):
        return " or ".join(dict.fromkeys(part for each in get_args(annotation) if (part := kind_of(each))))
    plain = {bool: "true, false", int: "integer", float: "number", str: "text"}
    plain |= {dict: "object", Path: "path", SecretStr: "text"}
    return plain.get(inner, getattr(inner, "__name__", str(inner)))


def default(info: FieldInfo) -> str:
    return "" if info.default is None or info.default == [] else f"`{json.dumps(info.default, default=str)}`"


def row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def memory_table() -> list[str]:
    """What the presets need with the smallest settings, by the plan's own numbers."""
    rows: list[str] = []
    for name, preset in PRESETS.items():
        sizes = [least_of(name, in_4bit=in_4bit, weights="gpu").bytes for in_4bit in (False, True)]
        if preset_shape(name).exact:
            sizes += least_of(name, in_4bit=True, weights="host")
        rows.append(
            row(
                f"`{name}`", preset.hub_id, *(f"{size / GIB:.1f}" for size in sizes), *(4 - len(sizes)) * [""]
            )
        )
    head = "| preset | model | 16 bits | 4 bits | 4 bits, streaming | and main memory for that |"
    return [head, "|---|---|---|---|---|---|", *rows]


def least_of(preset: str, *, in_4bit: bool, weights: str) -> Least:
    shape = preset_shape(preset)
    engine = "packed" if shape.exact else "autograd"
    parts = training_memory(shape, LoraGroup(), engine, in_4bit=in_4bit)
    need = least(parts, Machine(device="cuda", free_gpu_bytes=GIB, threads=1), weights=weights)
    if parts.exact:
        return need
    # Of an estimate, `least` counts the weights alone, so that nothing is refused by it.
    activations = parts.peak(None, "everything", TOKENS[-1]) - parts.weights(None)
    return need._replace(bytes=need.bytes + round(activations * (1 + SLACK)))


def fit_table() -> list[str]:
    """How each preset fits a GPU, by the plan's own numbers."""
    head = ["preset", *(f"{gib} GiB" for gib in CARDS)]
    rows = [row(f"`{name}`", *(how_it_fits(name, gib * GIB) for gib in CARDS)) for name in PRESETS]
    return [row(*head), f"|{'---|' * len(head)}", *rows]


def how_it_fits(preset: str, gpu: int) -> str:
    def fits(in_4bit: bool, weights: str) -> bool:
        streamed = weights == "host"
        there = preset_shape(preset).exact or not streamed
        return there and least_of(preset, in_4bit=in_4bit, weights=weights).bytes <= gpu

    if preset_shape(preset).stored_4bit:
        return "as stored" if fits(False, "gpu") else "as stored, streamed" if fits(False, "host") else "no"
    if fits(False, "gpu"):
        return "16 bits"
    ways = [
        "4 bits" if fits(True, "gpu") else "4 bits streamed" if fits(True, "host") else "",
        "16 bits streamed" if fits(False, "host") else "",
    ]
    return ", ".join(filter(None, ways)) or "no"


# --- Tools ---
def tool_sections(tools: list[Tool]) -> list[str]:
    lines: list[str] = []
    for tool in tools:
        lines += ["", f"### {tool.name}", "", *paragraphs(tool.description or ""), "", hints(tool), ""]
        properties: dict[str, Any] = tool.input_schema.get("properties", {})
        if properties:
            required = tool.input_schema.get("required", [])
            lines += ["| argument | values | default | |", "|---|---|---|---|"]
            lines += [argument_row(name, schema, name in required) for name, schema in properties.items()]
    return lines[1:]


def paragraphs(text: str) -> list[str]:
    return text.strip().splitlines()


def hints(tool: Tool) -> str:
    found = tool.annotations
    assert found
    said = ["Changes nothing." if found.read_only_hint else "Changes something."]
    said += ["May remove or replace something." if found.destructive_hint else ""]
    said += ["Uses the network, or the machine beyond its own files." if found.open_world_hint else ""]
    return f"*{' '.join(filter(None, said))}*"


def argument_row(name: str, schema: dict[str, Any], required: bool) -> str:
    shown = "required" if required else f"`{json.dumps(schema['default'])}`" if "default" in schema else ""
    return row(f"`{name}`", schema_kind(schema), shown, schema.get("description", ""))


def schema_kind(schema: dict[str, Any]) -> str:
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(map(schema_kind, schema["anyOf"])))
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {schema[bound]}" for bound, sign in signs.items() if bound in schema]
    names = {"string": "text", "array": "list", "boolean": "true, false"}
    kind = schema.get("type", "")
    return " ".join([names.get(kind, kind), *bounds])


# --- Errors ---
def error_table() -> list[str]:
    classes: dict[str, list[str]] = {}
    for error in filter(is_public, error_classes()):
        classes.setdefault(error.code, []).append(error.__name__)
    rows = [
        row(
            f"`{found['code']}`",
            found["meaning"],
            found["hint"] or "",
            str(found["exit_code"]),
            "yes" if found["retryable"] else "",
            ", ".join(f"`{name}`" for name in classes[found["code"]]),
        )
        for found in catalogue()
    ]
    return [
        "| code | meaning | what usually helps | exit | again | Python |",
        "|---|---|---|---|---|---|",
        *rows,
    ]


# --- Python ---
def python_sections() -> list[str]:
    """A section for each public name; the errors have a page of their own."""
    names = sorted((name for name in backpropagate.__all__ if name != "__version__"), key=str.lower)
    errors = [name for name in names if is_error(getattr(backpropagate, name))]
    lines = ["Errors: " + ", ".join(f"`{name}`" for name in errors) + " ([error-codes.md](error-codes.md))."]
    for name in names:
        if name not in errors:
            lines += ["", f"### {name}", "", *python_section(name, getattr(backpropagate, name))]
    return lines


def is_public(error: type) -> bool:
    """Whether it is of the tree that users know; a module may refine one for itself."""
    return error.__module__ == "backpropagate.training.errors"


def is_error(found: object) -> bool:
    """Whether it is one that the page of errors has; all are made as their base."""
    base = backpropagate.BackpropagateError
    return isinstance(found, type) and issubclass(found, base) and found is not base


def python_section(name: str, found: Any) -> Iterator[str]:
    if not callable(found):
        yield f"A `{type(found).__name__}`, read when it is first used."
        return
    if not is_data(found):
        yield from [f"`{signature(name, found)}`", ""]
    yield from introduction(found)
    if isinstance(found, type) and issubclass(found, Enum):
        yield from ["", ", ".join(f"`{member.name}`" for member in found)]
    elif isinstance(found, type) and issubclass(found, BaseModel):
        fields = [field for field in found.model_fields if not field.startswith("_")]
        yield from ["", f"Fields: {', '.join(f'`{field}`' for field in fields)}."]
    if isinstance(found, type):
        yield from members(found)


def is_data(found: Any) -> bool:
    """Whether it is made by others, so that its fields matter and not how it is made."""
    return isinstance(found, type) and (
        issubclass(found, BaseModel | Enum) or "TypedDict" in type(found).__name__
    )


def members(found: type) -> Iterator[str]:
    """The methods and properties of its own that are public."""
    shown = [
        f"| `{signature(name, member)}` | {first_line(member)} |"
        for name, member in vars(found).items()
        if not name.startswith("_") and is_method(member) and inspect.getdoc(member)
    ]
    if shown:
        yield from ["", "| | |", "|---|---|", *(line.replace(" | None", " \\| None") for line in shown)]


def is_method(member: object) -> bool:
    return inspect.isfunction(member) or isinstance(member, property | classmethod | staticmethod)


def signature(name: str, found: Any) -> str:
    if isinstance(found, property):
        return name
    made = found.__func__ if isinstance(found, classmethod | staticmethod) else found
    empty = inspect.Parameter.empty
    parameters = [
        one.replace(annotation=empty, default=Shown(one.default) if callable(one.default) else one.default)
        for one in inspect.signature(made).parameters.values()
        if one.name not in ("self", "cls")
    ]
    return f"{name}{inspect.Signature(parameters)}"


class Shown:
    """Writes a function that is a default as its name."""

    def __new__(cls, default: Any) -> Any:
        return default if default is inspect.Parameter.empty else super().__new__(cls)

    def __init__(self, default: Any) -> None:
        self._name = getattr(default, "__qualname__", "…")

    def __repr__(self) -> str:
        return self._name


def introduction(found: Any) -> list[str]:
    """The docstring, with its arguments as a list."""
    text = cleandoc(found.__doc__ or "")
    text = re.sub(r"\n {8}(?=\S)", " ", text)
    text = re.sub(r"^(\w+):\n", r"**\1**\n\n", text, flags=re.MULTILINE)
    return re.sub(r"^ {4}(\S)", r"- \1", text, flags=re.MULTILINE).splitlines()


def first_line(member: Any) -> str:
    return (inspect.getdoc(member) or "").split("\n\n")[0].replace("\n", " ").replace("|", "\\|")
