"""How far a run has come, from its result, its newest events and its plan."""

from __future__ import annotations

from contextlib import suppress
from typing import TypeVar

from ..config.results import AnyResult, MultiRunResult
from ..config.specs import AnySpec, TrainSpec
from ..errors import StateError
from ..events import Event, Step
from .folder import Progress, RunFolder, RunState

EventType = TypeVar("EventType", bound=Event)


def progress(run: RunFolder, spec: AnySpec, result: AnyResult | None, step: Step | None) -> Progress:
    """The steps of a multi-run that has ended are those of all its runs, else those of the last.

    Args:
        step: the newest of the run's events.
    """
    loss = step.loss if step else None
    if isinstance(result, MultiRunResult):
        return Progress(step=result.steps, total_steps=result.total_steps, loss=loss)
    if step:
        return Progress(step=step.step, total_steps=step.total_steps, loss=loss)
    planned = spec.training.steps if isinstance(spec, TrainSpec) and run.plan() else None
    return Progress(total_steps=planned)


def progress_at_end(run: RunFolder, state: RunState) -> Progress | None:
    """For the state of a run that ends; None if its folder is damaged, which its view will tell."""
    with suppress(StateError):
        spec = run.spec()
        if spec.kind == state.kind:
            return progress(run, spec, state.result, last_of(run.latest_events(), Step))
    return None


def last_of(events: list[Event], kind: type[EventType]) -> EventType | None:
    """The newest event of a kind."""
    return next((event for event in reversed(events) if isinstance(event, kind)), None)
