"""Runs that have ended as a test wants them, written down without being carried out."""

from __future__ import annotations

from typing import Any

from backpropagate.training.config.results import read_result
from backpropagate.training.config.specs import AnySpec
from backpropagate.training.runs.folder import RunFolder, Status
from backpropagate.training.runs.identity import now
from backpropagate.training.runs.store import RunStore


def finished_run(
    store: RunStore, spec: AnySpec, result: dict[str, Any], status: Status = Status.COMPLETED
) -> RunFolder:
    """A run of this spec with this result."""
    run = store.create(spec)
    told = read_result(spec.kind, result) if result else None
    ended = {"status": status, "result": told, "started_at": now(), "ended_at": now()}
    store.finish(run, run.state().model_copy(update=ended))
    return run
