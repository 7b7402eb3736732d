"""Merges settings into the groups of a spec: defaults, then `settings`, then arguments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..config.arguments import ALIASES, OTHER_NAMES, flat_fields, flat_name
from ..config.named_settings import with_named_values
from ..config.settings import Settings
from ..config.specs import GROUPS
from ..errors import InputError
from ..models.presets import AUTO
from ..nearest_name import nearest
from ..untrusted import quoted
from .default_model import model_or_default


def by_group(defaults: Settings, settings: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Values by group, and `output`.

    Args:
        defaults: the values of settings that are not given.
        settings: by group (`{"lora": {"dropout": 0.1}}`) or by flat name.
        arguments: by flat name; None means not given. They override groups in `settings`.

    Raises:
        InputError: a name is unknown (with the nearest known one) or given twice.
    """
    values: dict[str, dict[str, Any]] = {name: {} for name in GROUPS}
    groups = {name: group for name, group in settings.items() if name in GROUPS and group is not None}
    for name, group in groups.items():
        if not isinstance(group, Mapping):
            raise InputError(f"settings.{name} must be an object, not {quoted(group)}.")
        _take_group(values[name], name, group)  # pyright: ignore[reportUnknownArgumentType]
    flat = _given({name: value for name, value in settings.items() if name not in GROUPS}, GROUPS)
    typed = _given(arguments)
    twice = sorted(flat.keys() & typed.keys())
    if twice:
        raise InputError(f"{twice[0]} is given twice: as an argument and in settings.", hint="Give it once.")
    fields = flat_fields()
    for name, value in _own_names(flat | typed).items():
        if name != "output":
            group, field, _ = fields[name]
            values[group][field] = value
    merged = _over(defaults, values)
    model, training = merged["model"], merged["training"]
    if isinstance(name := model.get("name", AUTO), str):
        model["name"] = model_or_default(name, training.get("device", "auto"))
    output = flat.get("output", typed.get("output"))
    return merged if output is None else {**merged, "output": output}


def _over(defaults: Settings, values: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The values over the defaults; a preset of either is below the settings beside it."""
    kept = with_named_values(
        {name: getattr(defaults, name).model_dump(exclude_unset=True) for name in GROUPS}
    )
    given = with_named_values(values)
    return {name: kept[name] | given[name] for name in GROUPS}


def alias_notes(*given: Mapping[str, Any] | None) -> list[str]:
    """A sentence for each setting that was given under another tool's name.

    Args:
        given: arguments and settings as in `by_group`.
    """
    names = dict.fromkeys(name for values in given for name in _names(values or {}) if name in ALIASES)
    return [f"{name} is called {ALIASES[name].name} here." for name in names]


def _names(values: Mapping[str, Any]) -> Iterator[str]:
    """The given names, including those inside groups."""
    for name, value in values.items():
        if name in GROUPS and isinstance(value, Mapping):
            yield from value  # pyright: ignore[reportUnknownVariableType]
        elif value is not None:
            yield name


def _given(values: Mapping[str, Any], groups: Iterable[str] = ()) -> dict[str, Any]:
    """The values that are given: all but None.

    Args:
        groups: names that may be meant besides the settings.

    Raises:
        InputError: a name is unknown, also with None.
    """
    known = [*flat_fields(), *ALIASES, *groups, "output"]
    for name in values:
        require_known(name, known, "argument")
    return {name: value for name, value in values.items() if value is not None}


def _own_names(given: Mapping[str, Any]) -> dict[str, Any]:
    """The values under this package's names.

    Raises:
        InputError: a setting is given under two names.
    """
    own: dict[str, Any] = {}
    for name, value in given.items():
        alias = ALIASES.get(name)
        target = alias.name if alias else name
        if target in own or (alias and target in given):
            raise InputError(f"{target} is given twice: {name} is the same setting.", hint="Give it once.")
        value = alias.value(value) if alias else value
        if value is not None:
            own[target] = value
    return own


def _take_group(into: dict[str, Any], group: str, values: Mapping[str, Any]) -> None:
    fields = flat_fields()
    taken: dict[str, str] = {}
    for given, value in values.items():
        field, alias = given, ALIASES.get(given)
        if alias and fields[alias.name][0] == group:
            field, value = fields[alias.name][1], alias.value(value)
        require_known(field, list(GROUPS[group].model_fields), f"settings.{group}", _other_names_in(group))
        argument = flat_name(group, field)
        if argument in {"model", "dataset"}:
            raise InputError(
                f"settings.{group}.{field} is not accepted: {argument} is an argument.",
                hint=f"Use {argument}=….",
            )
        if value is None:
            continue
        if field in taken:
            raise InputError(
                f"settings.{group}.{field} is given twice: as {taken[field]} and as {given}.",
                hint="Give it once.",
            )
        taken[field] = given
        into[field] = value


def _other_names_in(group: str) -> dict[str, str]:
    """Flat names, and other tools' names, of the settings of a group → their names in the group."""
    fields = flat_fields()
    names = {name: name for name in fields} | OTHER_NAMES
    return {name: fields[flat][1] for name, flat in names.items() if fields[flat][0] == group}


def require_known(
    name: str, known: list[str], place: str, other_names: Mapping[str, str] = OTHER_NAMES
) -> None:
    """Raises InputError, with the known name that is meant, for an unknown name."""
    if name in known:
        return
    close = nearest(name, dict.fromkeys([*known, *other_names]), other_names)
    hint = f"Did you mean {close}?" if close else f"Known: {', '.join(known)}."
    raise InputError(f"Unknown {place} {quoted(name)}.", hint=hint)
