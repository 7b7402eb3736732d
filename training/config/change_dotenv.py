"""Changes the home's `.env`: checked as a whole before it replaces the old file."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from ..errors import InvalidSettingError
from ..files.atomic_json import write_bytes
from ..files.private_folder import make_private
from ..nearest_name import nearest
from ..next_step import then
from ..untrusted import quoted, shown_path
from .arguments import OTHER_NAMES, flat_fields
from .dotenv_file import NOT_IN_DOTENV, changed_text, names_in, read_dotenv
from .environment import ENV_PREFIX, earlier_name
from .settings import DotenvSettings, checked, environment_names

PRIVATE = 0o600


class Origin(NamedTuple):
    """Where the value of a setting comes from.

    Args:
        place: "environment", ".env" or "default".
        name: the variable that sets it; None for a default.
    """

    place: str
    name: str | None = None


def origins(home: Path) -> dict[str, Origin]:
    """The origin of each setting's value, by the name of its variable."""
    places = {"environment": dict(os.environ), ".env": read_dotenv(home / ".env")}
    found = {name: Origin("default") for name in environment_names()}
    for place in reversed(places):
        found |= {own: Origin(place, name) for own, name in _set_in(places[place]).items()}
    return found


def _set_in(variables: Mapping[str, str]) -> dict[str, str]:
    """The settings that have a value there → the variable that sets it."""
    found: dict[str, str] = {}
    for name in sorted(variables, key=_is_earlier, reverse=True):  # the setting's own name goes first
        own = _own(name)
        if own and variables[name]:
            found[own] = name
    return found


def _own(name: str) -> str | None:
    """The variable of the setting that a variable sets."""
    upper = name.upper()
    if upper in environment_names():
        return upper
    alias = earlier_name(upper.removeprefix(ENV_PREFIX)) if upper.startswith(ENV_PREFIX) else None
    return f"{ENV_PREFIX}{alias.name}" if alias else None


def _is_earlier(name: str) -> bool:
    return _own(name) not in (None, name.upper())


def variable_of(name: str) -> str:
    """The variable of a setting that is named `BACKPROPAGATE_LORA__R`, `LORA__R`, `lora.r` or `lora_r`.

    Raises:
        InvalidSettingError: there is no such setting, or `.env` may not set it.
    """
    plain = name.strip().upper().removeprefix(ENV_PREFIX).replace(".", "__")
    flat = OTHER_NAMES.get(plain.lower(), plain.lower())
    if flat in flat_fields():
        group, field, _ = flat_fields()[flat]
        plain = f"{group}__{field}".upper()
    variable = _own(f"{ENV_PREFIX}{plain}")
    if plain in NOT_IN_DOTENV:
        raise InvalidSettingError(
            f"{ENV_PREFIX}{plain} cannot be in a .env file: it decides which program runs or where to write.",
            hint="Set it in the environment of the server or the command.",
        )
    if variable is None:
        raise _unknown(name, plain)
    return variable


def lines_of(name: str | None, home: Path) -> list[str]:
    """The names in the home's `.env` that set a setting, or all names if none is given.

    Raises:
        InvalidSettingError: there is no such setting, nor a line with this name.
    """
    names = names_in(_text(home / ".env"))
    if name is None:
        return names
    literal = [
        each
        for each in names
        if each.upper().removeprefix(ENV_PREFIX) == name.upper().removeprefix(ENV_PREFIX)
    ]
    if literal:
        return literal
    variable = variable_of(name)
    return [each for each in names if _own(each) == variable]


def _text(dotenv: Path) -> str:
    return dotenv.read_bytes().decode("utf-8", "replace") if dotenv.is_file() else ""


def _unknown(name: str, plain: str) -> InvalidSettingError:
    known = [each.removeprefix(ENV_PREFIX) for each in environment_names()]
    close = nearest(plain, known)
    return InvalidSettingError(
        f"{quoted(name)} is not a setting.",
        hint=f"Did you mean {close}?" if close else None,
        next=None if close else then("show_settings"),
    )


def change_dotenv(home: Path, values: Mapping[str, str], removed: Collection[str] = ()) -> Path:
    """Set and remove variables in the home's `.env`; returns its path.

    Args:
        values: variable → value.
        removed: variables whose lines go.

    Raises:
        InvalidSettingError: with these values the settings are not valid. The file stays as it was.
    """
    make_private(home)
    dotenv = home / ".env"
    before = _text(dotenv)
    # A line with another name of the same setting would say otherwise.
    same = [name for name in names_in(before) if _own(name) in values and name.upper() not in values]
    content = changed_text(before, values, [*removed, *same]).encode()
    candidate = home / f".env.{os.getpid()}.new"
    try:
        write_bytes(candidate, content, PRIVATE)
        _require_valid(candidate, values, shown_path(dotenv))
    finally:
        candidate.unlink(missing_ok=True)
    write_bytes(dotenv, content, PRIVATE)
    return dotenv


def _require_valid(candidate: Path, values: Mapping[str, str], place: str) -> None:
    checked(candidate, DotenvSettings, place)
    checked(candidate, place=place)  # with the environment, as every command reads it
    written = read_dotenv(candidate, place)
    for name, value in values.items():
        if written.get(name) != value:
            raise InvalidSettingError(
                f"The value of {name} cannot be written to a .env file.",
                hint="Set it in the environment: a .env file replaces ${…} and cannot hold every character.",
            )
