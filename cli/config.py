"""`backprop config`: shows the settings and where they come from, and changes the home's `.env`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from ..training.config.change_dotenv import change_dotenv, lines_of, origins, variable_of
from ..training.config.settings import SECRETS, environment_names, home_folder, load_settings, values_of
from ..training.errors import InputError
from ..training.redact import scrub_all
from ..training.untrusted import one_line
from .options import description_of
from .wrapped import say, say_json

ALL = "*"


@click.command("config")
@click.option("--show", is_flag=True, help="Show each setting, its value, and where it comes from (default).")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Set in the home's .env. Repeatable.")
@click.option(
    "--reset",
    is_flag=False,
    flag_value=ALL,
    metavar="[KEY]",
    help="Remove KEY, or every setting, from the home's .env.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def config(show: bool, sets: tuple[str, ...], reset: str | None, as_json: bool) -> None:
    """Show the settings, or change them in the .env file of the home folder.

    KEY is the name of a setting: lora_r, lora.r, LORA__R or BACKPROPAGATE_LORA__R.
    """
    if sets and reset:
        raise InputError("set and reset are both given.", hint="Give one of them.")
    if sets:
        _set(dict(_pair(text) for text in sets))
    elif reset:
        _reset(reset)
    if show or not (sets or reset):
        _show(as_json)


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not value:
        raise InputError("--set takes KEY=VALUE.", hint="Write e.g. --set lora.r=8; --reset KEY removes one.")
    return variable_of(name), value


def _set(values: dict[str, str]) -> None:
    home = home_folder()
    path = change_dotenv(home, values)
    for name in values:
        say(f"{name} is set in {path}.")
    _tell_of_environment(home, values)


def _tell_of_environment(home: Path, names: Iterable[str]) -> None:
    found = origins(home)
    for name in names:
        if found[name].place == "environment":
            say(f"The environment sets {found[name].name} too, and goes before the file.", err=True)


def _reset(name: str) -> None:
    home = home_folder()
    names = lines_of(None if name == ALL else name, home)
    if not names:
        say(f"Nothing to remove: {home / '.env'} does not set {'anything' if name == ALL else name}.")
        return
    path = change_dotenv(home, {}, names)
    for entry in names:
        say(f"{entry} is removed from {path}.")


def _show(as_json: bool) -> None:
    settings = load_settings()
    found = origins(settings.home)
    values = scrub_all(values_of(settings))
    facts = {
        name: {
            "value": _value(name, values[name]),
            "from": found[name].place,
            "name": found[name].name,
            "description": description_of(field),
        }
        for name, field in environment_names().items()
    }
    if as_json:
        say_json(json.dumps({"file": str(settings.home / ".env"), "settings": facts}, indent=1))
        return
    say(f"File: {settings.home / '.env'}")
    for name, fact in facts.items():
        value = "unset" if fact["value"] is None else one_line(str(fact["value"]), 100)
        say(f"{name} = {value}  [{_place(name, fact)}]", 4)


def _value(name: str, value: Any) -> Any:
    return "[hidden]" if name in SECRETS and value is not None else value


def _place(name: str, fact: dict[str, Any]) -> str:
    """`default`, `.env`, or `environment, as BACKPROPAGATE_…` for another name of the setting."""
    other = fact["name"] is not None and fact["name"].upper() != name
    return f"{fact['from']}, as {fact['name']}" if other else fact["from"]
