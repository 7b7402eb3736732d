"""The losses of a training as few points: for charts, and for a line of text.

The points of a long run are every second, fourth, … step, so that a million of them need no more memory.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from ..events import Evaluated, Event, Step
from .folder import RunFolder

POINTS = 400
OUTLINE = 20


class LossPoint(NamedTuple):
    """A loss, mean per label token in nats.

    Args:
        seq: number of its event.
        step: the optimizer step; of a multi-run over all of its runs.
    """

    seq: int
    step: int
    loss: float


@dataclass(frozen=True)
class LossCurve:
    """The losses of a run so far.

    Args:
        seq: number of the last event that is in it.
        losses: training losses, at most twice `POINTS`.
        evals: held-out losses.
        begins: of a multi-run, for each run the steps of all runs before it.
    """

    seq: int
    losses: Sequence[LossPoint]
    evals: Sequence[LossPoint]
    begins: Sequence[int]

    @property
    def outline(self) -> list[float]:
        """At most `OUTLINE` losses: means of equal parts of the run."""
        losses = [point.loss for point in self.losses]
        parts = min(OUTLINE, len(losses))
        bounds = [len(losses) * part // parts for part in range(parts + 1)] if parts else []
        return [sum(losses[start:end]) / (end - start) for start, end in pairwise(bounds)]


class Thinned:
    """Points of which only every n-th is kept, and the newest; n doubles when they are too many."""

    def __init__(self) -> None:
        self._kept: list[LossPoint] = []
        self._newest: LossPoint | None = None
        self._every = 1
        self._waiting = 0  # points until the next one is kept

    def add(self, point: LossPoint) -> None:
        """A point that does not come after the last one replaces those from there on: the run was resumed."""
        self._newest = point
        while self._kept and self._kept[-1].step >= point.step:
            self._kept.pop()
        if self._waiting:
            self._waiting -= 1
            return
        self._kept.append(point)
        if len(self._kept) > 2 * POINTS:
            self._kept = self._kept[::2]
            self._every *= 2
        self._waiting = self._every - 1

    def points(self) -> list[LossPoint]:
        newest = self._newest
        return self._kept + ([newest] if newest and self._kept[-1:] != [newest] else [])


@dataclass
class CurveReader:
    """Reads the events of a run once, and later only those that have been added."""

    path: Path
    _offset: int = 0
    _seq: int = 0
    _losses: Thinned = field(default_factory=Thinned)
    _evals: Thinned = field(default_factory=Thinned)
    _begins: dict[int, int] = field(default_factory=dict[int, int])  # run → steps before it
    _ends: dict[int, int] = field(default_factory=dict[int, int])
    _begin: int = 0  # of the last step's run
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self) -> LossCurve:
        """The curve as it is now.

        Raises:
            RunFolderError: the events cannot be read.
        """
        with self._lock:
            before = -1
            while self._offset != before:
                before = self._offset
                events, self._offset = RunFolder(self.path).events(before)
                for event in events:
                    self._add(event)
            return LossCurve(
                self._seq, self._losses.points(), self._evals.points(), sorted(self._begins.values())
            )

    def _add(self, event: Event) -> None:
        self._seq = max(self._seq, event.seq)
        match event:
            case Step():
                self._begin = self._before(event)
                self._losses.add(LossPoint(event.seq, self._begin + event.step, event.loss))
            case Evaluated(step=0) if self._begins:
                pass  # a later run's rows before it: the last run's loss has this place
            case Evaluated():
                self._evals.add(LossPoint(event.seq, self._begin + event.step, event.loss))
            case _:
                pass

    def _before(self, step: Step) -> int:
        """The steps of all runs before that of this step."""
        if step.run is None:
            return 0
        begin = self._begins.setdefault(step.run, self._ends.get(step.run - 1, 0))
        self._ends[step.run] = begin + step.total_steps
        return begin
