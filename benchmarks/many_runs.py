"""A home with many runs that have ended, written down without being carried out."""

from __future__ import annotations

import json
from pathlib import Path

from backpropagate.training.config.results import read_result
from backpropagate.training.config.specs import TrainSpec
from backpropagate.training.events import Phase, Step
from backpropagate.training.runs.folder import Status
from backpropagate.training.runs.identity import now
from backpropagate.training.runs.store import RunStore

STEPS = 100


def make_runs(home: Path, count: int) -> None:
    """Completed trainings of a hundred steps."""
    store = RunStore(home)
    spec = TrainSpec.model_validate({"model": {"name": "a/model"}, "data": {"source": "rows.jsonl"}})
    events = _events()
    result = read_result("train", {"outcome": "completed", "steps": STEPS, "final_loss": 1.0})
    for _ in range(count):
        run = store.create(spec)
        with run.events_path.open("ab") as file:
            file.write(events)
        ended = {"status": Status.COMPLETED, "result": result, "started_at": now(), "ended_at": now()}
        store.finish(run, run.state().model_copy(update=ended))


def _events() -> bytes:
    steps = [
        Step(seq=n + 3, step=n, total_steps=STEPS, loss=2 - n / STEPS, tokens_per_s=1e4, eta_s=1.0)
        for n in range(1, STEPS + 1)
    ]
    told = [Phase(seq=2, phase="training", message="training"), *steps]
    return b"".join(json.dumps(event.model_dump(mode="json")).encode() + b"\n" for event in told)
