"""`backprop completion`, and what Tab completes: run ids, files, models, and the values of settings."""

from __future__ import annotations

from typing import get_args

import click
from click.shell_completion import CompletionItem, get_completion_class
from pydantic.fields import FieldInfo

from ..training.config.settings import home_folder
from ..training.errors import InputError
from ..training.models.presets import PRESETS
from ..training.runs.store import RunStore
from .wrapped import say

NEWEST = 50
VARIABLE = "_BACKPROP_COMPLETE"
SHELLS = {
    "bash": 'eval "$(backprop completion bash)"  # in ~/.bashrc',
    "zsh": 'eval "$(backprop completion zsh)"  # in ~/.zshrc',
    "fish": "backprop completion fish | source  # in ~/.config/fish/config.fish",
    "powershell": "backprop completion powershell | Out-String | Invoke-Expression  # in $PROFILE",
}
"""Shell → the line that turns it on."""


@click.command("completion")
@click.argument("shell", type=click.Choice([*SHELLS]))
def completion(shell: str) -> None:
    """Print the script that completes commands, options and run ids in SHELL."""
    kind = get_completion_class(shell)
    if kind is None:
        raise InputError(
            f"This version of click cannot complete in {shell}.",
            hint="Update it: pip install --upgrade click.",
        )
    program = click.get_current_context().find_root().command
    click.echo(kind(program, {}, "backprop", VARIABLE).source())
    say(f"To turn it on: {SHELLS[shell]}", err=True)


def complete_run(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """The newest runs' ids that contain what is typed: whole ids, since their ends are what people know."""
    ids = [run_id for run_id in RunStore(home_folder()).ids() if begun in run_id]
    return [CompletionItem(run_id) for run_id in ids[:NEWEST]]


def complete_run_or_path(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    return complete_run(ctx, parameter, begun) or complete_path(ctx, parameter, begun)


def complete_path(ctx: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Leaves it to the shell."""
    return [CompletionItem(begun, type="file")]


class CompleteSetting:
    """The values of a setting: its choices, a model's presets, or files."""

    def __init__(self, name: str, info: FieldInfo) -> None:
        self._paths = name in {"dataset", "model"}
        self._values = [*PRESETS] if name == "model" else _choices(info.annotation)

    def __call__(self, ctx: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
        found = [CompletionItem(value) for value in self._values if value.startswith(begun)]
        return found or (complete_path(ctx, parameter, begun) if self._paths else [])


def _choices(annotation: object) -> list[str]:
    """The words of a Literal, also within an optional or another union."""
    parts = get_args(annotation)
    return [
        word
        for part in parts
        for word in ([part] if isinstance(part, str) else _choices(part) if get_args(part) else [])
    ]
