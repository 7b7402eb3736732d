"""get_run: show one run in detail; can wait for its next event."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .context import ToolContext
from .follow import WaitSeconds, follow
from .loss_plot import loss_plot
from .status import RunStatus, run_status

RunId = Annotated[str, Field(min_length=1, max_length=200, description="Run id, or any unique part.")]


Detail = Annotated[
    Literal["short", "full"], Field(description='"full": also all that the run recorded, and longer answers.')
]

Plot = Annotated[bool, Field(description="Also the losses as a PNG.")]


async def get_run(
    context: ToolContext,
    run_id: RunId,
    wait_s: WaitSeconds = 0,
    detail: Detail = "short",
    plot: Plot = False,
) -> RunStatus:
    """Show one run: status, losses, time left, adapter, answers, error and next step.

    With wait_s it streams progress and returns when the run starts, warns, is evaluated or ends.
    """
    view = await context.service.get(run_id)
    if wait_s > 0:
        view = await follow(context, view.run_id, wait_s, stop_at_news=True)
    status = run_status(view, whole=detail == "full")
    if not plot:
        return status
    picture = loss_plot(await context.service.curve(view.run_id))
    note = None if picture else "There are no losses to draw yet."
    return status.model_copy(update={"plot": picture, "note": note})
