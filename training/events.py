"""The events of a run, one class per kind.

The work reports events (`Report`); the run's recorder numbers, dates and appends them to events.jsonl;
progress messages, command line, callbacks and views read them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Any

from pydantic import BaseModel, ConfigDict

from .errors import ErrorRecord


class Event(BaseModel):
    """The common fields of all events.

    Args:
        seq: number in the run, from 1; 0 before it is written down.
        t: UTC time at which it was written down.
        kind: names the class; the same as its key in `EVENTS`.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    seq: int = 0
    t: str = ""
    kind: str


class Queued(Event):
    """The run waits for its first worker, or for that of another attempt.

    Args:
        run_id: the run's id, in the first event only.
        attempt: number of the attempt, from 1; each resume adds one.
    """

    kind: str = "queued"
    run_id: str | None = None
    attempt: int = 1


class Phase(Event):
    """What the run is doing.

    Args:
        phase: a key of `PHASES`.
        message: one line for people.
        fraction: share of the phase that is done, 0 to 1, where that is known.
        ahead: ready runs before this one in the queue.
    """

    kind: str = "phase"
    phase: str
    message: str
    fraction: float | None = None
    ahead: int | None = None


class Step(Event):
    """One optimizer step.

    Args:
        step: number of the step, from 1.
        total_steps: steps that are planned.
        loss: training loss of this step, mean per label token, in nats.
        learning_rate: of this step.
        grad_norm: norm of the gradient before clipping.
        tokens_per_s: tokens trained on per second, padding not counted.
        eta_s: estimated seconds left.
        run, num_runs: of a multi-run, the number of the run that the step belongs to, from 1, and of all.
    """

    kind: str = "step"
    step: int
    total_steps: int
    loss: float
    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens_per_s: float | None = None
    eta_s: float | None = None
    run: int | None = None
    num_runs: int | None = None

    @property
    def overall(self) -> tuple[float, float]:
        """What is done, and what there is to do: in steps, or of a multi-run in hundredths of a run."""
        if self.run is None or self.num_runs is None:
            return self.step, self.total_steps
        return 100 * (self.run - 1 + self.step / self.total_steps), 100 * self.num_runs


class Epoch(Event):
    """A pass over the training data has ended.

    Args:
        epoch: number of the pass, from 1.
        step: the optimizer step with which it ended.
    """

    kind: str = "epoch"
    epoch: int
    step: int


class Evaluated(Event):
    """An evaluation on the held-out rows.

    Args:
        step: the optimizer step after which it was made; 0 is the model before training.
        loss: mean per label token, in nats.
        perplexity: exp(loss).
    """

    kind: str = "eval"
    step: int
    loss: float
    perplexity: float | None = None


class CheckpointSaved(Event):
    """A checkpoint is on the disk.

    Args:
        step: the optimizer step after which it was made.
        path: its folder.
    """

    kind: str = "checkpoint"
    step: int
    path: str


class AdapterSaved(Event):
    """The finished adapter is on the disk: from here on the run keeps it, even if its worker dies.

    Args:
        path: its folder.
    """

    kind: str = "saved"
    path: str


class Warned(Event):
    """Something that the user should know.

    Args:
        message: one or more sentences for people.
    """

    kind: str = "warning"
    message: str


class Said(Event):
    """More of an answer that is being made, for a request that asked for it.

    Args:
        untrusted_text: what follows the text of the earlier events, with JSON's escapes: characters that are
            taken out of an event, such as joiners, belong to the answer.
    """

    kind: str = "said"
    untrusted_text: str

    @classmethod
    def of(cls, text: str) -> Said:
        return cls(untrusted_text=json.dumps(text)[1:-1])

    @property
    def text(self) -> str:
        """As the model said it; empty if the event is damaged."""
        try:
            return json.loads(f'"{self.untrusted_text}"')
        except ValueError:
            return ""


class Done(Event):
    """The run has ended: completed or cancelled.

    Args:
        status: `completed` or `cancelled`.
    """

    kind: str = "done"
    status: str


class Failed(Event):
    """The run has failed, or one of its processes is gone.

    Args:
        status: `failed` or `interrupted`.
        error: the reason.
    """

    kind: str = "error"
    status: str = "failed"
    error: ErrorRecord | None = None


EVENTS: dict[str, type[Event]] = {
    "queued": Queued,
    "phase": Phase,
    "step": Step,
    "epoch": Epoch,
    "eval": Evaluated,
    "checkpoint": CheckpointSaved,
    "saved": AdapterSaved,
    "warning": Warned,
    "said": Said,
    "done": Done,
    "error": Failed,
}

PHASES = {
    "starting": (0.02, 0.05),
    "checking": (0.05, 0.10),
    "waiting": (0.10, 0.15),
    "downloading": (0.15, 0.50),
    "loading": (0.50, 0.70),
    "preparing": (0.70, 0.90),
    "training": (0.90, 1.00),
    "saving": (1.00, 1.00),
    "judging": (1.00, 1.00),
    "answering": (1.00, 1.00),
    "generating": (0.70, 0.99),
    "measuring": (0.70, 0.99),
    "writing": (0.15, 0.60),
    "proving": (0.60, 0.90),
    "uploading": (0.15, 0.80),
    "creating": (0.80, 0.90),
    "trying": (0.90, 0.99),
}
"""The phases of a run, each with its range of progress (0 to 1) before the first step, or in runs without
steps."""

Report = Callable[[Event], None]
"""Receives an event of the work. The only way to report progress."""

ShouldStop = Callable[[], bool]
"""Whether the user has requested a stop; called between rows, steps, blocks and questions."""


def no_report(event: Event) -> None:
    """Ignores progress."""


REPORT_EVERY_S = 0.5


def throttled(report: Report) -> Report:
    """`report` with at most two progress messages a second in one phase, and no message twice in a row.

    A message without a fraction, the first of a phase, and the last (fraction 1) are always reported.
    """
    last: Phase | None = None
    reported_at = -inf

    def report_some(event: Event) -> None:
        nonlocal last, reported_at
        if isinstance(event, Phase):
            if last and (event.phase, event.message) == (last.phase, last.message):
                return
            halfway = event.fraction is not None and event.fraction < 1
            same_phase = last is not None and last.phase == event.phase
            if halfway and same_phase and monotonic() - reported_at < REPORT_EVERY_S:
                return
            last, reported_at = event, monotonic()
        report(event)

    return report_some


def never_stop() -> bool:
    """Never requests a stop."""
    return False


def event_from(record: dict[str, Any]) -> Event:
    """The event of a line of events.jsonl; an unknown kind is a plain `Event`.

    Raises:
        ValueError: it lacks a field of its kind.
    """
    return EVENTS.get(str(record.get("kind")), Event).model_validate(record)
