"""`backprop info`."""

from __future__ import annotations

import json
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click

from .. import __version__
from ..tools.gpu_status import GpuStatus
from ..training.errors import catalogue
from ..training.hardware.reading import read_hardware
from ..training.settings import environment_names, home_folder

LIBRARIES = ("mcp", "torch", "transformers", "peft", "trl", "datasets", "bitsandbytes")


@click.command("info")
@click.option("--error-codes", is_flag=True, help="List every error code instead.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(error_codes: bool, as_json: bool) -> None:
    """Version, paths, hardware and settings; or every error code."""
    if error_codes:
        _print_codes(as_json)
        return
    facts = _facts()
    if as_json:
        click.echo(json.dumps(facts, indent=1))
        return
    click.echo(f"backpropagate {facts['version']}, Python {facts['python']} ({facts['interpreter']})")
    click.echo(f"home       {facts['home']}")
    for name, found in facts["libraries"].items():
        click.echo(f"{name:<10} {found or 'not installed'}")
    click.echo(GpuStatus(hardware=read_hardware()).text())
    click.echo("Settings (environment variables, or lines in the home's .env):")
    for name, text in facts["settings"].items():
        click.echo(f"  {name:<50} {text}")


def _print_codes(as_json: bool) -> None:
    rows = catalogue()
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        again = "  (may be tried again)" if row["retryable"] else ""
        click.echo(f"{row['code']:<34} exit {row['exit_code']}  {row['meaning']}{again}")


def _facts() -> dict[str, Any]:
    return {
        "version": __version__,
        "python": platform.python_version(),
        "interpreter": sys.executable,
        "platform": platform.platform(),
        "home": str(home_folder()),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "hardware": read_hardware().model_dump(mode="json"),
        "settings": {name: field.description or "" for name, field in environment_names().items()},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
