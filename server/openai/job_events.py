"""The events of a run as those of a job, newest first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

from ...training.events import (
    AdapterSaved,
    CheckpointSaved,
    Done,
    Epoch,
    Evaluated,
    Event,
    Failed,
    Phase,
    Queued,
    Step,
    Warned,
)
from ...training.redact import scrub
from ...training.runs.event_log import all_events
from ...training.runs.folder import RunFolder
from ...training.untrusted import one_line, quoted
from .errors import ApiError
from .job_objects import created_at, error_object
from .names import job_id
from .pages import Object

EVENT = "ftevent-"
LONGEST = 2_000  # characters of a message


class Told(NamedTuple):
    """What an event says."""

    message: str
    level: Literal["info", "warn", "error"] = "info"
    data: dict[str, Any] | None = None


TELL: dict[type[Event], Callable[[Any], Told]] = {
    Queued: lambda event: Told("Created fine-tuning job." if event.run_id else "Queued again."),
    Phase: lambda event: Told(event.message),
    Step: lambda event: _step(event),
    Epoch: lambda event: Told(f"Epoch {event.epoch} has ended, with step {event.step}."),
    Evaluated: lambda event: Told(
        f"Step {event.step}: validation loss={event.loss:.4f}",
        data={"step": event.step, "valid_loss": event.loss},
    ),
    CheckpointSaved: lambda event: Told(f"Checkpoint at step {event.step}, from which the job can resume."),
    AdapterSaved: lambda _event: Told("The fine-tuned model is saved."),
    Warned: lambda event: Told(event.message, "warn"),
    Done: lambda event: Told(
        "The job has successfully completed." if event.status == "completed" else "The job was cancelled."
    ),
    Failed: lambda event: Told(
        error_object(event.error)["message"] if event.error else "The job has failed.", "error"
    ),
}
"""The events that are shown."""


def _step(event: Step) -> Told:
    data = event.model_dump(include={"step", "total_steps", "learning_rate", "grad_norm", "tokens_per_s"})
    return Told(
        f"Step {event.step}/{event.total_steps}: training loss={event.loss:.4f}",
        data={**data, "train_loss": event.loss},
    )


def job_events(run: RunFolder, after: str | None, wanted: int) -> list[Object]:
    """The events before that with the id `after`, or the newest; at least `wanted`, if there are as many.

    Raises:
        ApiError: `after` is no event of this job.
        RunFolderError: they cannot be read.
    """
    before = None if after is None else _number(run, after)
    newest = run.latest_events()
    found = list(_shown(run, newest, before))
    if len(found) < wanted and newest and newest[0].seq > 1:
        found = list(_shown(run, list(all_events(run.events_path)), before))
    return found


def _shown(run: RunFolder, events: list[Event], before: int | None) -> Iterator[Object]:
    for event in reversed(events):
        if type(event) in TELL and (before is None or event.seq < before):
            yield _object(run, event)


def _object(run: RunFolder, event: Event) -> Object:
    told = TELL[type(event)](event)
    return {
        "id": f"{EVENT}{run.run_id}-{event.seq}",
        "object": "fine_tuning.job.event",
        "created_at": created_at(event.t),
        "level": told.level,
        "message": one_line(scrub(told.message), LONGEST),
        "type": "metrics" if told.data else "message",
        "data": told.data,
    }


def _number(run: RunFolder, event_id: str) -> int:
    number = event_id.removeprefix(f"{EVENT}{run.run_id}-")
    if number.isascii() and number.isdigit() and len(number) < 16:
        return int(number)
    said = f"after: {quoted(event_id)} is no event of {job_id(run.run_id)}."
    raise ApiError(400, said, "invalid_value", "after")
