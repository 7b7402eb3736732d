"""The context and the result type of all tools."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import get_type_hints

from pydantic import BaseModel, ConfigDict

from ..training.events import Event
from ..training.files.paths import PathPolicy, looks_like_path
from ..training.models.presets import AUTO, classify_model, hub_id_of
from ..training.requests.dataset_source import resolved_source
from ..training.runs.view import RunView
from ..training.service import TrainingService

Show = Callable[[Sequence[Event]], Awaitable[None]]
"""Shows new events of a run to the user; called several times a second, also without new events."""


@dataclass(frozen=True)
class ToolContext:
    """The service, the permitted paths, and the display of progress.

    Args:
        began: when the call began, by the monotonic clock.
        longest_wait_s: how long the client waits for an answer, whatever the call says.
    """

    service: TrainingService
    paths: PathPolicy
    show: Show
    began: float = field(default_factory=time.monotonic)
    longest_wait_s: float = math.inf


def resolved_dataset(context: ToolContext, dataset: str | list[str]) -> str | list[str]:
    """The dataset with absolute paths.

    Raises:
        PathForbiddenError: a path may not be read.
    """
    return resolved_source(dataset, context.paths)


def resolved_model(context: ToolContext, model: str | None, *, weights: bool = True) -> str:
    """The model name; the path of a folder is resolved.

    Args:
        weights: as for `classify_model`.

    Raises:
        InputError: it is not a model name.
        PathForbiddenError: the folder may not be read.
    """
    name = model or context.service.settings.model.name
    if name == AUTO:
        return name
    # The policy is checked first, so that errors do not reveal files outside the permitted folders.
    if not hub_id_of(name) and looks_like_path(name):
        name = context.paths.resolve(name, "model")
    classify_model(name, weights=weights)
    return name


def as_lines(lines: Iterable[str]) -> str:
    """The text of a result, in which no name within a line can begin another."""
    return "\n".join(" ".join(line.splitlines()) for line in lines)


class ToolResult(BaseModel):
    """A tool's result: fields for programs, and a self-contained text."""

    model_config = ConfigDict(frozen=True)

    def text(self) -> str:
        raise NotImplementedError

    def picture(self) -> bytes | None:
        """A PNG beside the text, if one was asked for."""
        return None


@dataclass(frozen=True)
class AgentTool:
    """A tool: its function, its title and its MCP annotations.

    Args:
        always_load: whether assistants should see it whole from the start.
        of_run: of a tool whose call takes long, its result from its run and a note; such a call can be
            answered with the promise of that result.
        shows_run: whether a client with a place for it may show the run live.
    """

    function: Callable[..., Awaitable[ToolResult]]
    title: str
    read_only: bool
    destructive: bool
    idempotent: bool
    open_world: bool
    always_load: bool = False
    of_run: Callable[[RunView, str | None], ToolResult] | None = None
    shows_run: bool = False

    @property
    def result(self) -> type[ToolResult]:
        return get_type_hints(self.function)["return"]

    @property
    def name(self) -> str:
        return self.function.__name__
