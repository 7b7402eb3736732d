"""Finds a stopped multi-run that could be resumed instead of starting a new one."""

from __future__ import annotations

from contextlib import suppress
from itertools import islice

from ..config.specs import MultiRunSpec
from ..errors import PartialSuccessError, StateError
from .folder import RunFolder, RunState, Status
from .store import RunStore

LOOKED_AT = 100
"""Newest runs: each is read from the disk."""


def stopped_multi_run(store: RunStore, spec: MultiRunSpec) -> str | None:
    """The newest multi-run with the same model and datasets, if it was stopped and can be resumed."""
    for run, state in islice(store.newest(), LOOKED_AT):
        if isinstance(state, RunState) and state.kind == "multi_run" and _is_of(run, spec):
            return run.run_id if _can_be_resumed(state) else None
    return None


def _is_of(run: RunFolder, spec: MultiRunSpec) -> bool:
    with suppress(StateError):
        other = run.spec()
        return isinstance(other, MultiRunSpec) and _subject(other) == _subject(spec)
    return False


def _subject(spec: MultiRunSpec) -> tuple[object, ...]:
    return spec.model.name, spec.parent, [data.source for data in spec.datasets]


def _can_be_resumed(state: RunState) -> bool:
    if state.status is Status.FAILED:
        return state.error is not None and state.error.code == PartialSuccessError.code
    return state.status in {Status.CANCELLED, Status.INTERRUPTED}
