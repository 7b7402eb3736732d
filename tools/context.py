"""What every tool is given, and what every tool gives back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from ..training.events import Event
from ..training.files.paths import PathPolicy, looks_like_path
from ..training.models.presets import PRESETS, classify_model
from ..training.requests.dataset_source import resolved_source
from ..training.service import TrainingService

Show = Callable[[Sequence[Event]], Awaitable[None]]
"""Shows the person what is new of a run; called some times a second, also when nothing is new."""


@dataclass(frozen=True)
class ToolContext:
    """The service that does the work, the paths that may be touched, and the person's eyes."""

    service: TrainingService
    paths: PathPolicy
    show: Show


def resolved_dataset(context: ToolContext, dataset: str | list[str]) -> str | list[str]:
    """The dataset that is meant, with absolute paths.

    Raises:
        PathForbiddenError: a path may not be read.
    """
    return resolved_source(dataset, context.paths)


def resolved_model(context: ToolContext, model: str | None) -> str:
    """The model that is meant, with a folder's path resolved.

    Raises:
        InputError: the name is not a model's.
        PathForbiddenError: the folder may not be read.
    """
    name = model or context.service.settings.model.name
    if name.lower() not in PRESETS and looks_like_path(
        name
    ):  # the policy first: nobody may learn what lies where nobody may look
        name = context.paths.resolve(name, "model")
    classify_model(name)
    return name


class ToolResult(BaseModel):
    """A tool's result: fields for programs, and a text that stands alone."""

    model_config = ConfigDict(frozen=True)

    def text(self) -> str:
        raise NotImplementedError


@dataclass(frozen=True)
class AgentTool:
    """A tool as it is offered: its function, its title and what it does to the world."""

    function: Callable[..., Awaitable[ToolResult]]
    title: str
    read_only: bool
    destructive: bool
    idempotent: bool
    open_world: bool

    @property
    def name(self) -> str:
        return self.function.__name__
