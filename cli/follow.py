"""Shows the progress of a run on a terminal; Ctrl-C leaves it, or cancels what the command started."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

from ..tools.status import held_out_message, step_message
from ..training.errors import exit_code
from ..training.events import Evaluated, Event, Phase, Queued, Step, Warned
from ..training.runs.folder import ENDED, Status
from ..training.runs.view import RunView
from ..training.service import TrainingService
from .wording import as_options
from .wrapped import say

PLAIN_GAP_S = 2.0  # between two lines of progress without a terminal; later
PLAIN_GAP_SHARE = 0.02  # of the time since the first
PARTLY = 3  # exit code


class Display(Protocol):
    """Shows events to the user."""

    def show(self, events: Sequence[Event]) -> None: ...


async def follow(service: TrainingService, run_id: str) -> RunView:
    """Show the run until it has ended, or until Ctrl-C; the run continues."""
    with _display() as display, _interrupts() as interrupts:
        async for events in service.watch(run_id, tick_s=0.2):
            display.show(_of_the_latest_attempt(events))
            if interrupts.count:
                break
    view = await service.get(run_id)
    if view.status not in ENDED:
        say(f"The run continues. `backprop cancel {run_id}` stops it.", err=True)
    return view


async def follow_or_cancel(service: TrainingService, run_id: str) -> RunView:
    """Show the run until it has ended. Ctrl-C cancels it and saves its adapter; a second Ctrl-C exits at
    once, and the worker still saves the adapter."""
    with _display() as display, _interrupts() as interrupts:
        cancelled = False
        async for events in service.watch(run_id, tick_s=0.2):
            display.show(_of_the_latest_attempt(events))
            if interrupts.count and not cancelled:
                cancelled = True
                say(
                    "Cancelling; a training saves its adapter. Press Ctrl-C again to exit without waiting.",
                    err=True,
                )
                await service.cancel(run_id, "Ctrl-C")
            if interrupts.count > 1:
                raise KeyboardInterrupt
    return await service.get(run_id)


def _of_the_latest_attempt(events: list[Event]) -> list[Event]:
    """Without what earlier attempts of a resumed run told."""
    starts = [index for index, event in enumerate(events) if isinstance(event, Queued)]
    return events[starts[-1] :] if starts else events


def run_exit_code(view: RunView) -> int:
    """0 completed, 3 cancelled with an adapter, else the exit code of the error."""
    if view.status is Status.COMPLETED:
        return 0
    if view.status is Status.CANCELLED:
        return PARTLY if view.adapter_path else 2
    return exit_code(view.error.code) if view.error else 2


class Interrupts:
    """Number of times that Ctrl-C was pressed."""

    count = 0

    def __call__(self, _signal: int, _frame: FrameType | None) -> None:
        self.count += 1


@contextmanager
def _interrupts() -> Generator[Interrupts]:
    interrupts = Interrupts()
    before = signal.signal(signal.SIGINT, interrupts)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _display() -> Generator[Display]:
    if not sys.stderr.isatty():
        yield PlainDisplay()
        return
    from .bar import bar_display

    with bar_display() as display:
        yield display


class PlainDisplay:
    """Lines on stderr: each phase, warning and held-out loss; a step, or how far a phase is, at times.

    A long run tells these less and less often, so that its log can be read.
    """

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._shown_at = self._began - PLAIN_GAP_S
        self._doing = self._told = ""

    def show(self, events: Sequence[Event]) -> None:
        for event in events:
            match event:
                case Phase():
                    self._phase(event)
                case Warned():
                    _line(f"warning: {as_options(event.message)}")
                case Evaluated():
                    _line(held_out_message(event))
                case Step() if event.step == event.total_steps:
                    _line(step_message(event))
                case Step():
                    self._at_times(step_message(event))
                case _:
                    pass

    def _phase(self, event: Phase) -> None:
        if event.message == self._told:
            return
        self._told = event.message
        halfway = event.fraction is not None and event.fraction < 1 and event.phase == self._doing
        self._doing = event.phase
        if halfway:
            self._at_times(event.message)
        else:
            _line(event.message)

    def _at_times(self, message: str) -> None:
        now = time.monotonic()
        if now - self._shown_at >= max(PLAIN_GAP_S, PLAIN_GAP_SHARE * (now - self._began)):
            self._shown_at = now
            _line(message)


def _line(message: str) -> None:
    say(f"  {message}", 4, err=True)
