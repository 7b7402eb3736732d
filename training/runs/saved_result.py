"""The end of a run whose worker died after its result was saved: it has not failed."""

from __future__ import annotations

from ..config.results import TrainingResult
from .folder import RunState, Status
from .identity import now


def ended_with_result(state: RunState, warning: str) -> RunState:
    """As the result says: completed, or cancelled."""
    cancelled = isinstance(state.result, TrainingResult) and state.result.outcome == "cancelled"
    status = Status.CANCELLED if cancelled else Status.COMPLETED
    update = {"status": status, "ended_at": now(), "warnings": [*state.warnings, warning]}
    return state.model_copy(update=update)
