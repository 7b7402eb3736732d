"""A run whose worker is the test: it has the lock, and its events come when the test says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from waiting import small_spec

from backpropagate.training.events import Evaluated, Step
from backpropagate.training.runs.folder import Status
from backpropagate.training.runs.identity import now
from backpropagate.training.service import TrainingService


class MovingRun:
    """A running training of 100 steps."""

    def __init__(self, service: TrainingService, dataset: Path, model: Path) -> None:
        self._store = service.store
        self.run = self._store.create(small_spec(dataset, model, steps=100))
        self._lock = self.run.lock()
        assert self._lock.try_acquire()
        self.run.write_state(self.run.state().model_copy(update={"status": Status.RUNNING}))
        self._log = self.run.event_log()

    @property
    def run_id(self) -> str:
        return self.run.run_id

    @property
    def uri(self) -> str:
        return f"run://{self.run_id}"

    def step(self, step: int, loss: float = 1.0, **more: Any) -> None:
        self._log.append(Step(step=step, total_steps=100, loss=loss, **more))

    def evaluate(self, step: int, loss: float) -> None:
        self._log.append(Evaluated(step=step, loss=loss))

    def end(self, status: Status = Status.CANCELLED, result: object = None) -> None:
        ended = {"status": status, "ended_at": now(), "result": result}
        self._store.finish(self.run, self.run.state().model_copy(update=ended))
        self._lock.release()
