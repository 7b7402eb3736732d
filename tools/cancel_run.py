"""cancel_run: stop a run and save its adapter."""

from __future__ import annotations

from ..training.runs.folder import ENDED
from .context import ToolContext
from .follow import WaitSeconds, follow
from .get_run import RunId
from .status import RunStatus, run_status


async def cancel_run(context: ToolContext, run_id: RunId, wait_s: WaitSeconds = 20) -> RunStatus:
    """Stop a run within one training step, and save its adapter.

    A run that has already ended is not changed.
    """
    before = await context.service.get(run_id)
    if before.status in ENDED:
        return run_status(before, note=f"The run had already ended ({before.status}).")
    await context.service.cancel(before.run_id)
    return run_status(await follow(context, before.run_id, wait_s))
