"""list_runs: list past, running and queued runs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ..training.config.specs import TRAININGS
from ..training.runs.folder import Status
from ..training.runs.view import RunLine
from ..training.untrusted import shown_path
from .context import ToolContext, ToolResult, as_lines

StatusName = Annotated[
    Literal["queued", "running", "completed", "failed", "cancelled", "interrupted"],
    Field(description="Only runs with this status."),
]
Limit = Annotated[int, Field(ge=1, le=100, description="Maximum number of runs.")]


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
    runs, unreadable = await context.service.list(Status(status) if status else None, limit)
    following = "get_run(run_id=…) shows one of them." if runs else "train(dataset=…) starts one."
    if len(runs) == limit:
        following += f" These are the newest {limit}: a larger limit shows older ones."
    return RunList(runs=runs, unreadable=unreadable, next=following)


def _line(run: RunLine) -> str:
    loss = f", loss {run.loss:.4g}" if run.loss is not None else ""
    code = f", {run.error_code}" if run.error_code else ""
    steps = f"step {run.step}/{run.total_steps or '?'}{loss}" if run.kind in TRAININGS else run.kind
    return f"{run.run_id}: {run.status}, {shown_path(run.model)}, {steps}{code}"
