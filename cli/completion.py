"""What Tab completes in a shell: run ids, files, models, and the values of settings. click does the rest."""

from __future__ import annotations

from typing import get_args

import click
from click.shell_completion import CompletionItem
from pydantic.fields import FieldInfo

from ..training.config.settings import home_folder
from ..training.models.presets import PRESETS
from ..training.runs.store import RunStore

NEWEST = 50


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
