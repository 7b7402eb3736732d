"""The home's `.env`: what it sets, and its text with other values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from io import StringIO
from pathlib import Path

from ..errors import InvalidSettingError
from ..untrusted import quoted, shown_path
from .environment import ENV_PREFIX

NOT_IN_DOTENV = ("HOME", "RUNTIME_DIR", "PYTHON", "UNSLOTH__PYTHON", "UI__OUTPUT_DIR", "ROOTS")
"""Names that `.env` may not set: they decide which program is executed and where files are written."""


def read_dotenv(dotenv: Path, place: str | None = None) -> dict[str, str]:
    """The variables of the file as they are written in it; none without it.

    Args:
        place: what errors call the file.

    Raises:
        InvalidSettingError: it is not UTF-8, has a name without a value, or sets what it may not set.
    """
    if not dotenv.is_file():
        return {}
    from dotenv import dotenv_values

    place = place or shown_path(dotenv)
    try:
        values = dotenv_values(dotenv)
    except UnicodeDecodeError as error:
        raise InvalidSettingError(f"{place} is not UTF-8.", hint="Save it as UTF-8.", cause=error) from error
    for name, value in values.items():
        if value is None:
            raise InvalidSettingError(
                f"{place}: {quoted(name)} has no value.", hint="Write NAME=VALUE on each line."
            )
    for name in values:
        _require_settable(name, place)
    return {name: value or "" for name, value in values.items()}


def _require_settable(name: str, place: str) -> None:
    if name.upper().removeprefix(ENV_PREFIX) in NOT_IN_DOTENV:
        raise InvalidSettingError(
            f"{place} sets {quoted(name)}, which only an environment variable may set.",
            hint="Remove the line and set it in the environment of the server or the command.",
        )
    if not name.upper().startswith(ENV_PREFIX):
        raise InvalidSettingError(
            f"{place} sets {quoted(name)}, which is not a setting of backpropagate.",
            hint=f"Names in it begin with {ENV_PREFIX}; set other variables in the environment.",
        )


def names_in(text: str) -> list[str]:
    """The names in the text of a file, whatever else is wrong with it."""
    from dotenv.parser import parse_stream

    return [binding.key for binding in parse_stream(StringIO(text)) if binding.key]


def changed_text(text: str, values: Mapping[str, str], removed: Iterable[str] = ()) -> str:
    """The text of the file with these values; comments and other lines stay as they are.

    Args:
        values: by name; a name that is there already keeps its line.
        removed: names, whose lines go.
    """
    from dotenv.parser import parse_stream

    left = {name.upper(): f"{name}={_value(value)}\n" for name, value in values.items()}
    written = set(left)
    gone = {name.upper() for name in removed}
    parts: list[str] = []
    for binding in parse_stream(StringIO(text)):
        name = (binding.key or "").upper()
        if name in written:
            parts.append(left.pop(name, ""))  # a second line of the same name would win
        elif name not in gone:
            parts.append(binding.original.string)
    if left and parts and not parts[-1].endswith("\n"):
        parts.append("\n")
    return "".join([*parts, *left.values()])


def _value(text: str) -> str:
    """The value in quotes, with their escapes."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
