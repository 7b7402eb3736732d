"""The progress bar of a run on a terminal."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from ..tools.status import held_out_message, step_message
from ..training.errors import LONGEST_MESSAGE
from ..training.events import Evaluated, Event, Phase, Step, Warned
from ..training.untrusted import one_line
from .wording import as_options


class BarDisplay:
    """A spinner with the message of the phase, then a progress bar of steps."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def show(self, events: Sequence[Event]) -> None:
        for event in events:
            match event:
                case Phase():
                    self._progress.update(self._task, description=one_line(event.message))
                case Warned():
                    warning = escape(as_options(one_line(event.message, LONGEST_MESSAGE)))
                    self._progress.console.print(f"[yellow]warning:[/] {warning}")
                case Evaluated():
                    self._progress.console.print(held_out_message(event))
                case Step():
                    done, total = event.overall
                    self._progress.update(
                        self._task, description=step_message(event), completed=done, total=total
                    )
                case _:
                    pass


@contextmanager
def bar_display() -> Generator[BarDisplay]:
    columns = (
        SpinnerColumn(),
        BarColumn(bar_width=12),  # the message fits beside it in 80 columns
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield BarDisplay(progress, progress.add_task("queued", total=None))
