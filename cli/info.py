"""`backprop info`."""

from __future__ import annotations

import json
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

from .. import __version__
from ..tools.gpu_status import GpuStatus
from ..training.config.settings import Settings, environment_names, home_folder, load_settings, values_of
from ..training.error_catalogue import EARLIER_CODES, catalogue
from ..training.errors import InvalidSettingError
from ..training.hardware.reading import HardwareReading, read_hardware
from ..training.hardware.temperature import AskedLimits
from ..training.next_step import Next
from ..training.redact import scrub, scrub_all
from ..training.untrusted import one_line
from .options import description_of
from .wording import as_options, words
from .wrapped import say, say_json, say_lines, wrapped

LIBRARIES = ("mcp", "torch", "transformers", "peft", "trl", "datasets", "bitsandbytes")


@click.command("info")
@click.option("--error-codes", is_flag=True, help="List all error codes instead.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(error_codes: bool, as_json: bool) -> None:
    """Show version, paths, hardware and settings; or all error codes."""
    if error_codes:
        _print_codes(as_json)
        return
    facts = _facts()
    if as_json:
        say_json(json.dumps(facts, indent=1))
        return
    _say(f"backpropagate {facts['version']}, Python {facts['python']} ({facts['interpreter']})")
    say(f"{'OS':<12} {facts['platform']}", 13)
    say(f"home         {facts['home']}", 13)
    for name, found in facts["libraries"].items():
        say(f"{name:<12} {found or 'not installed'}")
    for line in GpuStatus(hardware=HardwareReading(**facts["hardware"])).text().split("\n"):
        _say(line)
    _say("Settings (environment variables, or lines of .env in the home folder; * marks changed values):")
    for name, setting in facts["settings"].items():
        _say(_line(name, **setting), 6)
    if "settings_error" in facts:
        error = facts["settings_error"]
        say(f"The settings are not valid; the defaults are shown. {error}", err=True)


def _say(line: str, indent: int = 2) -> None:
    """Print the line wrapped, also into a pipe: this is a page to read."""
    say_lines(wrapped(line, indent))


def _line(name: str, value: Any, default: Any, description: str) -> str:
    was = "" if value == default else f" (default: {_shown(default)})"
    return f"{'*' if was else ' '} {name} = {_shown(value)}{was}  {description}"


def _shown(value: Any) -> str:
    return "unset" if value is None else one_line(str(value), 100)


def _print_codes(as_json: bool) -> None:
    rows = [_with_hint(**row) for row in catalogue()]
    if as_json:
        say_json(json.dumps(rows, indent=1))
        return
    for row in rows:
        again = "  (retryable)" if row["retryable"] else ""
        _say(f"{row['code']:<34} exit {row['exit_code']}  {row['meaning']}{again}", 43)
        _say(f"{'':<43}{row['hint']}", 43)
    _say("Codes of version 1:")
    for code, instead in EARLIER_CODES.items():
        _say(f"{code:<34} {instead}", 43)


def _with_hint(next: Next | None, hint: str | None, **row: Any) -> dict[str, Any]:
    """The row with its hint as this surface words it."""
    step = f"Next: {words(next)}" if next else ""
    return {**row, "hint": as_options(" ".join(filter(None, [hint, step]))) or None}


def _facts() -> dict[str, Any]:
    facts: dict[str, Any] = {
        "version": __version__,
        "python": platform.python_version(),
        "interpreter": sys.executable,
        "platform": platform.platform(),
        "home": str(home_folder()),
        "libraries": {name: _version(name) for name in LIBRARIES},
    }
    default = Settings.model_construct(home=Path("~/.backpropagate").expanduser().absolute())
    try:
        settings = load_settings()
    except InvalidSettingError as error:  # shown, since users call `info` to find it
        facts["settings_error"] = scrub(error.sentence())
        settings = default
    asked = AskedLimits(**settings.gpu.model_dump())
    facts["hardware"] = read_hardware(asked).model_dump(mode="json")
    defaults, values = values_of(default), scrub_all(values_of(settings))
    facts["settings"] = {
        name: {"value": values[name], "default": defaults[name], "description": description_of(field)}
        for name, field in environment_names().items()
    }
    return facts


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
