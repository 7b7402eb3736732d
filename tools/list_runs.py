"""list_runs: list past, running and queued runs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from ..training.config.specs import TRAININGS
from ..training.runs.folder import Status
from ..training.runs.view import RunView
from ..training.untrusted import shown_path
from .context import ToolContext, ToolResult, as_lines

StatusName = Annotated[
    Literal["queued", "running", "completed", "failed", "cancelled", "interrupted"],
    Field(description="Only runs with this status."),
]
Limit = Annotated[int, Field(ge=1, le=100, description="Maximum number of runs.")]


class RunLine(BaseModel):
    """One run in a list."""

    run_id: str
    kind: str
    status: str
    model: str
    created_at: str
    step: int
    total_steps: int | None = None
    loss: float | None = None
    eta_s: float | None = None
    error_code: str | None = None


class RunList(ToolResult):
    """Runs, newest first."""

    runs: list[RunLine]
    unreadable: list[str] = Field(
        default_factory=list[str], description="Run folders that cannot be read, with the reason."
    )
    next: str

    def text(self) -> str:
        lines = [_line(run) for run in self.runs] or ["No runs."]
        lines += self.unreadable
        return as_lines([*lines, f"Next: {self.next}"])


async def list_runs(context: ToolContext, status: StatusName | None = None, limit: Limit = 10) -> RunList:
    """List past, running and queued runs, newest first."""
    views, unreadable = await context.service.list(Status(status) if status else None, limit)
    following = "get_run(run_id=…) shows one of them." if views else "train(dataset=…) starts one."
    return RunList(runs=[_run_line(view) for view in views], unreadable=unreadable, next=following)


def _run_line(view: RunView) -> RunLine:
    return RunLine(
        run_id=view.run_id,
        kind=view.kind,
        status=view.status.value,
        model=view.model,
        step=view.step,
        total_steps=view.total_steps,
        loss=view.loss,
        eta_s=view.eta_s,
        created_at=view.created_at,
        error_code=view.error.code if view.error else None,
    )


def _line(run: RunLine) -> str:
    loss = f", loss {run.loss:.4g}" if run.loss is not None else ""
    code = f", {run.error_code}" if run.error_code else ""
    steps = f"step {run.step}/{run.total_steps or '?'}{loss}" if run.kind in TRAININGS else run.kind
    return f"{run.run_id}: {run.status}, {shown_path(run.model)}, {steps}{code}"
