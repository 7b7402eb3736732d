"""The process of one tracker: `python -P -m backpropagate.training.trackers.main NAME RUN_FOLDER AFTER`.

Follows events.jsonl from the event after the number AFTER on. A line on stdin, an `Ending`, says how the run
ended; stdin without one, that its worker died. Each line on stdout is a `Said`.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Protocol, TextIO

from pydantic import BaseModel, ValidationError

from ..config.settings import load_settings
from ..logs import configure_logging
from ..runs.event_log import read_events
from ..runs.folder import RunFolder
from .facts import Facts
from .measures import Measures, Point, Value
from .system_load import system_load

LOOK_S = 1.0
LOAD_S = 10.0  # between two looks at the machine's load
END_S = 30.0  # after the end of the run, this process ends itself


class Ending(BaseModel):
    """How a run ended; without a status, its worker died."""

    succeeded: bool = False
    summary: dict[str, Value] = {}


class Said(BaseModel):
    """What this process tells its worker: where its run is, that all is sent, or which error there was."""

    place: str | None = None
    sent: bool = False
    failed: str | None = None


class Tracker(Protocol):
    """A run of a tracker: opened by its constructor, told of points, ended once."""

    place: str

    def log(self, points: list[Point]) -> None: ...

    def end(self, step: int, summary: dict[str, Value], *, succeeded: bool) -> None: ...


class End:
    """Waits on stdin for the end of the run; soon afterwards this process ends, whatever it does."""

    def __init__(self) -> None:
        self.ending = Ending()
        self._known = threading.Event()
        threading.Thread(target=self._read, daemon=True, name="end-of-run").start()

    def wait(self, seconds: float) -> bool:
        return self._known.wait(seconds)

    def _read(self) -> None:
        line = sys.stdin.buffer.readline()
        # By a thread of C: also while a library holds the interpreter.
        faulthandler.dump_traceback_later(END_S, exit=True)
        try:
            self.ending = Ending.model_validate_json(line)
        except ValidationError:
            self.ending = Ending()
        self._known.set()


def main() -> None:
    """Tell the tracker that the arguments name of a run, until the run has ended."""
    _, name, folder, after = sys.argv
    if sys.platform != "win32":
        os.nice(10)  # Windows has it from the worker
    wire = _own_stdout()
    end = End()
    try:
        configure_logging(load_settings())
        run = RunFolder(Path(folder))
        tracker = open_tracker(name, Facts.of(run))
        _say(wire, Said(place=tracker.place))
        _follow(run, int(after), tracker, end)
        _say(wire, Said(sent=True))
    except BaseException as error:  # of a foreign library, in whatever way
        traceback.print_exc()
        _say(wire, Said(failed=type(error).__name__))
    os._exit(0)  # nothing that a library still does at exit is waited for


def open_tracker(name: str, facts: Facts) -> Tracker:
    """A run in the tracker of this name; its library is imported here."""
    match name:
        case "wandb":
            from .to_wandb import Wandb

            return Wandb(facts)
        case "tensorboard":
            from .to_tensorboard import TensorBoard

            return TensorBoard(facts)
        case "mlflow":
            from .to_mlflow import Mlflow

            return Mlflow(facts)
        case _:
            from .to_trackio import Trackio

            return Trackio(facts)


def _follow(run: RunFolder, after: int, tracker: Tracker, end: End) -> None:
    """Send what is new until the run has ended, and its summary."""
    measures = Measures()
    offset, ended = 0, False
    load_at = time.monotonic()
    system_load()  # the first reading of a processor is no load
    while not ended:
        ended = end.wait(LOOK_S)
        offset = _send_new(run, offset, after, tracker, measures)
        if time.monotonic() - load_at >= LOAD_S or ended:
            load_at = time.monotonic()
            tracker.log([Point(measures.step, time.time(), system_load())])
    tracker.end(measures.step, end.ending.summary, succeeded=end.ending.succeeded)


def _send_new(run: RunFolder, offset: int, after: int, tracker: Tracker, measures: Measures) -> int:
    """Send the points of the events behind an offset; returns the offset after the last one."""
    before = -1
    while offset != before:
        before = offset
        events, offset = read_events(run.events_path, offset)
        # Earlier attempts are counted, but were sent by their own processes.
        found = [(event.seq, measures.point(event)) for event in events]
        points = [point for seq, point in found if point and seq > after]
        if points:
            tracker.log(points)
    return offset


def _own_stdout() -> TextIO:
    """stdout for this process alone: what libraries print goes to stderr."""
    wire = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return wire


def _say(wire: TextIO, said: Said) -> None:
    try:
        wire.write(said.model_dump_json() + "\n")
        wire.flush()
    except OSError:
        pass  # the worker died


if __name__ == "__main__":
    main()
