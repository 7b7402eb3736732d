"""resume_run: resume a cancelled, failed or interrupted run."""

from __future__ import annotations

from ..training.config.fields import AllowOtherBase, Gpus
from ..training.runs.folder import ENDED
from .context import ToolContext
from .follow import WaitSeconds, follow, require_success
from .get_run import RunId
from .status import RunStatus, run_status


async def resume_run(
    context: ToolContext,
    run_id: RunId,
    allow_other_base: AllowOtherBase = False,
    gpus: Gpus | None = None,
    wait_s: WaitSeconds = 50,
) -> RunStatus:
    """Resume a cancelled, failed or interrupted run from its last checkpoint.

    Its id, settings and data stay, and its number of GPUs unless `gpus` is given. The result equals an
    uninterrupted run.
    """
    before = await context.service.get(run_id)
    if before.status not in ENDED:
        unused = "" if gpus is None else "; gpus is not used"
        return run_status(before, note=f"The run is already {before.status}{unused}.")
    await context.service.resume(before.run_id, allow_other_base=allow_other_base, gpus=gpus)
    view = await follow(context, before.run_id, wait_s)
    require_success(view)
    return run_status(view)
