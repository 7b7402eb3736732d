"""A run as it is shown: one flat record, the same in tools, command line and Python."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from ..config.specs import DataSpec, ExportSpec, RegisterSpec, TrainSpec
from ..errors import ErrorRecord, RunFolderError
from ..redact import cleaned
from .events import Event, latest_events
from .folder import RunFolder, RunState, Status


class Answer(BaseModel):
    """One question with its answers: before and after the training, and in Ollama. A model's text: data."""

    question: str
    before: str | None = None
    after: str | None = None
    in_ollama: str | None = None


class RunView(BaseModel):
    """One run."""

    run_id: str
    kind: str
    status: Status
    model: str
    dataset: str | list[str] | None
    parent: str | None = Field(None, description="The run from whose adapter this one went on.")
    training: str | None = Field(None, description="The training whose model is exported.")
    phase: str | None = Field(None, description="What a live run is doing.")
    step: int = 0
    total_steps: int | None = None
    loss: float | None = Field(None, description="Training loss of the last step.")
    tokens_per_s: float | None = None
    eta_s: float | None = Field(None, description="Estimated seconds left.")
    first_loss: float | None = None
    eval_loss: float | None = Field(None, description="Loss on the held-out rows.")
    eval_loss_before: float | None = Field(None, description="The same, of the model as it came.")
    engine: str | None = Field(None, description="The engine that trained, and why that one.")
    attempt: int = 1
    data: str | None = Field(None, description="What became of the dataset's rows.")
    created_at: str
    started_at: str | None = None
    ended_at: str | None = None
    host: str
    survives_client: bool = True
    run_folder: str
    adapter_path: str | None = None
    output: str | None = None
    path: str | None = Field(None, description="What an export wrote, or a registration reads.")
    summary: str | None = Field(None, description="What a run that trains nothing came to.")
    answers: list[Answer] = Field(default_factory=list[Answer])
    warnings: list[str] = Field(default_factory=list[str])
    error: ErrorRecord | None = None
    result: dict[str, Any] = Field(default_factory=dict[str, Any], exclude=True)
    next: str | None = None


def view(run: RunFolder, state: RunState) -> RunView:
    """The run as its folder tells it; `state` is what `RunStore.observe` found.

    Raises:
        RunFolderError: the folder cannot be read.
    """
    spec = run.spec()
    try:
        events = latest_events(run.events_path)
    except OSError as error:
        raise RunFolderError(f"{run.events_path} cannot be read ({error}).", cause=error) from error
    result = state.result or {}
    step = _last(events, "step")
    phase = _last(events, "phase")
    return RunView(
        run_id=run.run_id,
        kind=state.kind,
        status=state.status,
        model=spec.subject,
        dataset=spec.data.source if isinstance(spec, DataSpec) else None,
        parent=spec.parent if isinstance(spec, TrainSpec) else None,
        training=spec.run if isinstance(spec, ExportSpec) else None,
        phase=_phase(state, step, phase),
        step=step.get("step", 0) if step else 0,
        total_steps=step.get("total_steps") if step else _planned_steps(run),
        loss=step.get("loss") if step else None,
        tokens_per_s=step.get("tokens_per_s") if step else None,
        eta_s=step.get("eta_s") if step and _is_stepping(state, step, phase) else None,
        first_loss=result.get("first_loss"),
        eval_loss=_eval_loss(events, result),
        eval_loss_before=result.get("eval_loss_before"),
        engine=_engine(result),
        attempt=state.attempt,
        data=_data(result),
        created_at=state.created_at,
        started_at=state.started_at,
        ended_at=state.ended_at,
        host=state.host,
        survives_client=state.survives_client,
        run_folder=str(run.path),
        adapter_path=str(run.adapter_path) if run.adapter_path.is_dir() else None,
        output=result.get("output"),
        path=result.get("path", spec.gguf if isinstance(spec, RegisterSpec) else None),
        summary=result.get("summary"),
        answers=[Answer.model_validate(answer) for answer in result.get("answers", [])],
        warnings=_warnings(events, result),
        error=state.error,
        result=result,
    )


def _warnings(events: list[Event], result: dict[str, Any]) -> list[str]:
    told = [cleaned(str(event.get("message"))) for event in events if event.kind == "warning"]
    return result.get("warnings", told)[:10]


def _last(events: list[Event], kind: str) -> Event | None:
    return next((event for event in reversed(events) if event.kind == kind), None)


def _is_stepping(state: RunState, step: Event, phase: Event | None) -> bool:
    """Whether the last step is of now: not of an attempt before, and not followed by other work."""
    return state.status is Status.RUNNING and (phase is None or step.seq > phase.seq)


def _phase(state: RunState, step: Event | None, phase: Event | None) -> str | None:
    if state.status not in {Status.QUEUED, Status.RUNNING} or phase is None:
        return None
    if step is not None and step.seq > phase.seq:
        return "training"
    return str(phase.get("message"))


def _eval_loss(events: list[Event], result: dict[str, Any]) -> float | None:
    latest = _last(events, "eval")
    return result.get("eval_loss", latest.get("loss") if latest and latest.get("step") else None)


def _engine(result: dict[str, Any]) -> str | None:
    return f"{result['engine']} engine ({result['engine_reason']})" if "engine" in result else None


def _data(result: dict[str, Any]) -> str | None:
    if "rows_used" not in result:
        return None
    told = [
        f"{result['rows_used']} of {result['rows']} rows used",
        f"{result['held_out']} held out",
        f"{result['trained_token_share']:.0%} of the tokens trained",
    ]
    return "; ".join([", ".join(told), *result.get("notes", [])])


def _planned_steps(run: RunFolder) -> int | None:
    plan: dict[str, Any] = run.plan() or {}
    return plan.get("steps")
