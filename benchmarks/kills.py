"""What `kill_matrix.py` and `multi_run_kill.py` share: a run whose worker is killed at a chosen moment."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Protocol

import anyio
import psutil
from workload import make_importable

make_importable()
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from backpropagate.training.config.specs import TrainingSpec  # noqa: E402
from backpropagate.training.events import Event  # noqa: E402
from backpropagate.training.runs.event_log import read_events  # noqa: E402
from backpropagate.training.runs.folder import ENDED, RunFolder, Status  # noqa: E402
from backpropagate.training.service import TrainingService  # noqa: E402

LOOK_S = 0.0003
MOST_RESUMES = 3
MOST_TRIES = 6
"""Runs for one kill: a folder is half-written for a few milliseconds only."""
SHAPE = {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4}


class Moment(Protocol):
    """When to strike."""

    def has_come(self, run: RunFolder) -> bool: ...

    def was_met(self, run: RunFolder) -> bool:
        """Whether the dead worker's run folder shows that the kill came in time."""
        ...

    def after_a_miss(self) -> Moment:
        """The moment for the next try."""
        ...


@dataclass(frozen=True)
class AfterEvent:
    """`delay_s` seconds after an event like `event` was written."""

    event: Event
    delay_s: float

    def has_come(self, run: RunFolder) -> bool:
        latest = time.time() - self.delay_s
        return any(alike(self.event, event) and written(event) <= latest for event in events_of(run))

    def was_met(self, run: RunFolder) -> bool:
        return run.state().status not in ENDED

    def after_a_miss(self) -> Moment:
        return replace(self, delay_s=self.delay_s / 2)

    def __str__(self) -> str:
        what = (
            getattr(self.event, "phase", None)
            or f"{self.event.kind} {getattr(self.event, 'step', '')}".strip()
        )
        return f"{self.delay_s * 1000:.0f} ms after {what}"


def alike(one: Event, other: Event) -> bool:
    return (
        all(getattr(one, name, None) == getattr(other, name, None) for name in ("phase", "run", "step"))
        and one.kind == other.kind
    )


def written(event: Event) -> float:
    return datetime.fromisoformat(event.t).timestamp()


def events_of(run: RunFolder) -> list[Event]:
    return read_events(run.events_path)[0]


async def end_of(service: TrainingService, run: RunFolder) -> Status:
    async for _ in service.watch(run.run_id):
        pass
    return run.state().status


async def strike(run: RunFolder, moment: Moment) -> bool:
    """Kill the run's worker when the moment has come; False if that was too late."""
    worker = next(child for child in psutil.Process().children() if str(run.path) in child.cmdline())
    while not moment.has_come(run):
        if run.state().status in ENDED:
            return False
        await anyio.sleep(LOOK_S)
    try:
        worker.kill()
        worker.wait()
    except psutil.NoSuchProcess:
        return False
    return moment.was_met(run)


async def killed_run(
    service: TrainingService, spec: TrainingSpec, moment: Moment
) -> tuple[RunFolder, Moment, bool]:
    """A run that has been killed at `moment`; False beside the last one tried if none was."""
    for attempt in range(1, MOST_TRIES + 1):
        run = service.store.find((await service.submit(spec)).run_id)
        if await strike(run, moment):
            return run, moment, True
        await end_of(service, run)
        print(f"{moment}: missed, try {attempt} of {MOST_TRIES}", file=sys.stderr)
        moment = moment.after_a_miss()
    return run, moment, False
