"""A run for display, the same on every surface: the common fields, and the result of its kind."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field

from ..config.results import Answer, AnyResult, TrainingResult
from ..config.specs import (
    AnySpec,
    DataSpec,
    EvaluateSpec,
    KindName,
    ModelSpec,
    MultiRunSpec,
    TrainingSpec,
)
from ..errors import ErrorRecord, RunFolderError
from ..events import Evaluated, Event, Phase, Step, Warned
from ..next_step import Next, then
from ..untrusted import one_line, quoted, shown_path
from .after_status import next_step_of
from .cluster_job import cluster_of
from .folder import ENDED, RunFolder, RunState, Status
from .progress import last_of, progress
from .run_settings import settings_of

WARNINGS_SHOWN = 10


class RunView(BaseModel):
    """One run."""

    model_config = ConfigDict(defer_build=True)  # a server starts sooner

    run_id: str
    kind: KindName
    status: Status
    model: str = Field(description="The model of the run, or the model name or repository that it writes.")
    dataset: str | list[str] | None = None
    settings: dict[str, Any] = Field(
        default_factory=dict[str, Any], description="Of a training: each setting, with what its plan decided."
    )
    parent: str | None = Field(None, description="The run whose adapter this run continues from.")
    training: str | None = Field(None, description="The training run whose model is exported or asked.")
    phase: str | None = Field(None, description="Current phase of a queued or running run.")
    step: int = 0
    total_steps: int | None = None
    loss: float | None = Field(None, description="Training loss of the last step.")
    first_loss: float | None = None
    losses: list[float] = Field(
        default_factory=list[float],
        description="Of a single training: mean losses of equal parts, from its start to now.",
    )
    eval_loss: float | None = Field(None, description="Loss on the held-out rows.")
    eval_loss_before: float | None = Field(None, description="The base model's loss on the held-out rows.")
    verdict: str | None = Field(None, description="Whether the training helped, in one sentence.")
    tokens_per_s: float | None = None
    eta_s: float | None = Field(None, description="Estimated seconds left.")
    attempt: int = 1
    created_at: str
    started_at: str | None = None
    ended_at: str | None = None
    host: str
    job: str | None = Field(None, description="The cluster that carries it out, and its job there.")
    survives_client: bool = True
    run_folder: str
    adapter_path: str | None = None
    warnings: list[str] = Field(default_factory=list[str])
    result: Annotated[AnyResult, Discriminator("kind")] | None = None
    error: ErrorRecord | None = None
    next: Next | None = None

    @property
    def answers(self) -> list[Answer]:
        """Questions with the model's answers; empty if the run asked none."""
        return self.result.answered if self.result else []


class RunLine(BaseModel):
    """One run in a list."""

    model_config = ConfigDict(defer_build=True)

    run_id: str
    kind: KindName
    status: Status
    model: str
    created_at: str
    step: int = 0
    total_steps: int | None = None
    loss: float | None = None
    eta_s: float | None = None
    error_code: str | None = None


def line(run: RunFolder, state: RunState) -> RunLine:
    """The run in a list; of one that has ended no file but its state is read.

    Raises:
        RunFolderError: the folder cannot be read.
    """
    if state.status not in ENDED or state.subject is None or state.progress is None:
        seen = view(run, state)
        code = seen.error.code if seen.error else None
        return RunLine(**seen.model_dump(include=set(RunLine.model_fields)), error_code=code)
    return RunLine(
        run_id=run.run_id,
        kind=state.kind,
        status=state.status,
        model=state.subject,
        created_at=state.created_at,
        **state.progress.model_dump(),
        error_code=state.error.code if state.error else None,
    )


def view(run: RunFolder, state: RunState) -> RunView:
    """The run from its folder; `state` is the result of `RunStore.observe`.

    Raises:
        RunFolderError: the folder cannot be read.
    """
    spec = run.spec()
    if spec.kind != state.kind:
        raise RunFolderError(
            f"{shown_path(run.path)}: spec.json is of a run of kind {spec.kind}, and state.json of "
            f"kind {quoted(state.kind)}.",
            hint="Restore the files, or remove the run.",
            next=then("delete", run_id=run.run_id),
        )
    events = run.latest_events()
    result = state.result
    trained = result if isinstance(result, TrainingResult) else None
    step, phase = last_of(events, Step), last_of(events, Phase)
    come = progress(run, spec, result, step)
    has_adapter = run.adapter_path.is_dir()
    return RunView(
        run_id=run.run_id,
        kind=state.kind,
        status=state.status,
        model=spec.subject,
        dataset=state.dataset or _dataset(spec),
        settings=_settings(run, spec, state),
        parent=spec.parent if isinstance(spec, TrainingSpec) else None,
        training=spec.run if isinstance(spec, ModelSpec) else None,
        phase=_phase(state, step, phase),
        step=come.step,
        total_steps=come.total_steps,
        loss=come.loss,
        first_loss=trained.first_loss if trained else None,
        eval_loss=trained.eval_loss if trained else _eval_loss(events),
        eval_loss_before=trained.eval_loss_before if trained else None,
        verdict=trained.judgement if trained else None,
        tokens_per_s=step.tokens_per_s if step else None,
        eta_s=step.eta_s if step and _is_stepping(state, step, phase) else None,
        attempt=state.attempt,
        created_at=state.created_at,
        started_at=state.started_at,
        ended_at=state.ended_at,
        host=state.host,
        job=_job(spec, state),
        survives_client=state.survives_client,
        run_folder=str(run.path),
        adapter_path=str(run.adapter_path) if has_adapter else None,
        warnings=_warnings(state, events),
        result=result,
        error=state.error,
        next=next_step_of(run.run_id, spec, state),
    )


def _settings(run: RunFolder, spec: AnySpec, state: RunState) -> dict[str, Any]:
    """Those of a training; the GPUs are those of this attempt."""
    if not isinstance(spec, TrainingSpec):
        return {}
    settings = settings_of(spec, run.plan())
    gpus = state.result.gpus if isinstance(state.result, TrainingResult) else state.gpus
    return settings | ({} if gpus is None else {"gpus": gpus})


def _job(spec: AnySpec, state: RunState) -> str | None:
    if state.cluster is None:
        return quoted(name) if (name := cluster_of(spec)) else None
    return " ".join(filter(None, [quoted(state.cluster.name), state.cluster.job_id]))


def _dataset(spec: AnySpec) -> str | list[str] | None:
    if isinstance(spec, MultiRunSpec) and spec.tasks:
        named = [task.dataset for task in spec.tasks]
        return [name for names in named for name in ([names] if isinstance(names, str) else names)]
    return spec.data.source if isinstance(spec, DataSpec | EvaluateSpec) else None


def _warnings(state: RunState, events: list[Event]) -> list[str]:
    seen = [one_line(event.message) for event in events if isinstance(event, Warned)]
    return (state.warnings or seen)[:WARNINGS_SHOWN]


def _is_stepping(state: RunState, step: Step, phase: Phase | None) -> bool:
    """Whether the last step is current: not of an earlier attempt, and without a later phase."""
    return state.status is Status.RUNNING and (phase is None or step.seq > phase.seq)


def _phase(state: RunState, step: Step | None, phase: Phase | None) -> str | None:
    if state.status is Status.QUEUED and state.cluster and state.cluster.waits_for:
        return f"waiting for {quoted(state.cluster.name)}: {state.cluster.waits_for}"
    if state.status not in {Status.QUEUED, Status.RUNNING} or phase is None:
        return None
    if step is None or step.seq < phase.seq:
        return phase.message
    return f"training, run {step.run} of {step.num_runs}" if step.run else "training"


def _eval_loss(events: list[Event]) -> float | None:
    latest = last_of(events, Evaluated)
    return latest.loss if latest and latest.step else None
