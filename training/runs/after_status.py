"""The next step after looking at a run, as data; each surface describes it with its own names."""

from __future__ import annotations

from ..config.specs import (
    AnySpec,
    EvaluateSpec,
    ExportSpec,
    GenerateSpec,
    InspectSpec,
    MultiRunSpec,
    ProbeSpec,
    PushSpec,
    RegisterSpec,
    TrainSpec,
)
from ..errors import ErrorRecord, GpuOutOfMemoryError
from ..next_step import Next, then
from .folder import RunState, Status
from .kinds import next_after

USERS_FAULT = frozenset({"INPUT", "CONFIG", "DEP"})
"""First words of error codes that an unchanged attempt would raise again."""


def would_fail_again(error: ErrorRecord) -> bool:
    """Whether an unchanged attempt would raise this error again."""
    if error.next is not None and error.next.action == "ask_again" and error.next.arguments:
        return True
    return error.code.split("_")[0] in USERS_FAULT or error.code == GpuOutOfMemoryError.code


def next_step_of(run_id: str, spec: AnySpec, state: RunState) -> Next | None:
    """The next step; None if there is none."""
    match state.status:
        case Status.QUEUED | Status.RUNNING:
            return then("get_run", run_id=run_id)
        case Status.COMPLETED:
            return next_after(run_id, spec, state.result)
        case Status.FAILED if state.error and would_fail_again(state.error):
            return state.error.next or _start_again(spec)
        case Status.FAILED | Status.CANCELLED | Status.INTERRUPTED:
            return then("resume", run_id=run_id)


def _start_again(spec: AnySpec) -> Next:
    match spec:
        case TrainSpec():
            return then("train", dataset=..., model=spec.model.name)
        case MultiRunSpec():
            return then("multi_run", dataset=..., model=spec.model.name)
        case ProbeSpec():
            return then("probe", dataset=spec.data.source, model=spec.model.name)
        case GenerateSpec():
            return then("generate", source=spec.run or spec.adapter or spec.model.name, prompts=...)
        case EvaluateSpec():
            return then("evaluate", source=spec.run or spec.adapter or spec.model.name)
        case ExportSpec():
            return then("export", source=spec.run or spec.adapter or spec.model.name)
        case RegisterSpec():
            return then("register", path=spec.gguf, name=spec.name)
        case PushSpec():
            return then("push", source=spec.run or spec.folder, repo=spec.repo)
        case InspectSpec():
            return then("inspect", dataset=spec.data.source)
