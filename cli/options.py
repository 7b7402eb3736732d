"""Command-line options, generated from the definitions of the settings."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Literal, TypeVar, get_args, get_origin

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ..training.config.arguments import ALIASES, OTHER_NAMES, Alias, flat_fields
from ..training.errors import InputError
from .completion import CompleteSetting

Function = TypeVar("Function", bound=Callable[..., Any])

NAMES = {
    "dataset": ["--data", "--dataset", "-d"],
    "model": ["--model", "-m"],
    "learning_rate": ["--lr", "--learning-rate"],
    "questions": ["--question", "--questions"],
}
"""Options that differ from the flat name with dashes."""

MORE_FLAGS = {"use_unsloth": ["--unsloth/--no-unsloth"]}
"""Spellings of another tool's flags besides its name."""

LISTS = ("dataset", "validation", "questions", "lora_target_modules", "report_to")
"""Settings with a list of values."""


def setting_options(*groups: str) -> Callable[[Function], Function]:
    """Add one option per setting of these groups; without groups, of all, `dataset` included.

    The command gets a value under the setting's flat name.
    """

    def decorate(function: Function) -> Function:
        fields = flat_fields()
        shown = {
            name: info
            for name, (group, _, info) in fields.items()
            if not groups or (group in groups and name != "dataset")
        }
        for name, alias in ALIASES.items():
            if alias.name in shown and f"--{name}" not in NAMES.get(alias.name, []):
                function = _alias_option(name, shown[alias.name], alias)(function)
        for name, info in reversed(shown.items()):
            function = _option(name, info)(function)
        return function

    return decorate


def named_options(*names: str) -> Callable[[Function], Function]:
    """Add the options of these settings only."""

    def decorate(function: Function) -> Function:
        fields = flat_fields()
        for name in reversed(names):
            function = _option(name, fields[name][2])(function)
        return function

    return decorate


def option_of(name: str, value: Any) -> str:
    """A setting as it is typed, with its value quoted for a shell."""
    option = NAMES.get(name, [f"--{name.replace('_', '-')}"])[0]
    return f"{option} {shlex.quote(json.dumps(value) if isinstance(value, dict) else str(value))}"


def group_options(group: type[BaseModel], names: Mapping[str, list[str]]) -> Callable[[Function], Function]:
    """Add one option per setting of a group that belongs to one command only.

    Args:
        names: options that differ from the setting's name with dashes.
    """

    def decorate(function: Function) -> Function:
        for name, info in reversed(group.model_fields.items()):
            function = _option(name, info, names.get(name))(function)
        return function

    return decorate


def _option(name: str, info: FieldInfo, names: list[str] | None = None) -> Callable[[Function], Function]:
    names = names or NAMES.get(name, [f"--{name.replace('_', '-')}"])
    if info.annotation is bool:
        plain = names[0].removeprefix("--")
        return click.option(f"--{plain}/--no-{plain}", name, default=None, help=_help(info))
    return click.option(
        *names,
        name,
        multiple=True,  # so that a second value is noticed
        default=None,
        metavar=_metavar(info.annotation),
        shell_complete=CompleteSetting(name, info),
        help=_help(info) + (" May be repeated." if name in LISTS else ""),
    )


def _alias_option(name: str, info: FieldInfo, alias: Alias) -> Callable[[Function], Function]:
    """Another tool's name of a setting: accepted, but not in the help."""
    plain = name.replace("_", "-")
    if "true" in alias.values or info.annotation is bool:
        flags = [f"--{plain}/--no-{plain}", *MORE_FLAGS.get(name, [])]
        return click.option(*flags, name, default=None, hidden=True)
    return click.option(f"--{plain}", name, multiple=True, default=None, hidden=True)


def _help(info: FieldInfo) -> str:
    text = description_of(info)
    shown = info.default is not None and info.default != [] and info.default is not False
    return f"{text} [default: {info.default}]" if shown else text


def description_of(info: FieldInfo) -> str:
    """The description of a setting."""
    return info.description or _inner_description(info.annotation) or ""


def _inner_description(annotation: Any) -> str | None:
    """The description of the type inside an optional one."""
    for part in get_args(annotation):
        for extra in getattr(part, "__metadata__", ()):
            if getattr(extra, "description", None):
                return extra.description
    return None


def _metavar(annotation: Any) -> str:
    kinds = {int: "N", float: "X", str: "TEXT"}
    if annotation in kinds:
        return kinds[annotation]
    if get_origin(annotation) is Literal:
        return "|".join(str(value) for value in get_args(annotation))
    for part in get_args(annotation):
        inner = getattr(part, "__origin__", part)
        if get_origin(inner) is Literal and type(None) in get_args(annotation):
            return _metavar(inner)
        if inner in kinds:
            return kinds[inner]
    return "TEXT"


def given(values: dict[str, Any]) -> dict[str, Any]:
    """The given settings, in the types of the spec."""
    shown = {name: _given_once(name, value) for name, value in values.items() if value not in (None, ())}
    if "columns" in shown:
        shown["columns"] = _columns(shown["columns"])
    return shown


def _given_once(name: str, value: Any) -> Any:
    """The value of an option; the values of one that takes a list.

    Raises:
        InputError: an option that takes one value is given several times.
    """
    if not isinstance(value, tuple):
        return value
    texts = [str(text) for text in value]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if OTHER_NAMES.get(name, name) in LISTS:
        return _list(OTHER_NAMES.get(name, name), texts)
    if len(texts) > 1:
        raise InputError(f"{name} is given {len(texts)} times: {', '.join(texts)}.", hint="Give it once.")
    return texts[0]


def _list(name: str, texts: list[str]) -> list[str] | str:
    """The values of an option that may be repeated, and may be JSON lists; one name stays a plain text."""
    found = [part for text in texts for part in _parts(name, text)]
    return found[0] if len(found) == 1 and name != "questions" else found


def _parts(name: str, text: str) -> list[str]:
    if text.lstrip().startswith("["):
        with suppress(ValueError):
            return [str(part) for part in json.loads(text)]
    if name == "lora_target_modules":
        return [part.strip() for part in text.split(",")]
    return [text]


def _columns(text: str) -> dict[str, str]:
    """Parses `{"prompt": "Frage"}` or `prompt=Frage,completion=Antwort`.

    Raises:
        InputError: it is neither.
    """
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except ValueError as error:
            raise InputError(f"columns: {text!r} is not JSON ({error}).", hint=COLUMNS_HINT) from error
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(column for _, _, column in pairs):
        raise InputError(f"columns: {text!r} has no column name.", hint=COLUMNS_HINT)
    return {field.strip(): column.strip() for field, _, column in pairs}


COLUMNS_HINT = "Write prompt=Frage,completion=Antwort or the same as JSON."
