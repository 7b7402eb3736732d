"""cancel_run: stop a run and keep what it has learnt."""

from __future__ import annotations

from ..training.runs.folder import ENDED
from .context import ToolContext
from .follow import WaitSeconds, follow
from .get_run import RunId
from .status import RunStatus, run_status


async def cancel_run(context: ToolContext, run_id: RunId, wait_s: WaitSeconds = 20) -> RunStatus:
    """Stop a run within one training step. What it has learnt so far is saved as its adapter.

    A run that has ended already is left as it is.
    """
    before = await context.service.get(run_id)
    if before.status in ENDED:
        return run_status(before, note=f"The run had ended already ({before.status}).")
    await context.service.cancel(before.run_id)
    return run_status(await follow(context, before.run_id, wait_s))
