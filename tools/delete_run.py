"""delete_run: remove an ended run and its files."""

from __future__ import annotations

from typing import Annotated

import anyio.to_thread
from pydantic import Field

from ..training.errors import ConfirmationNeededError
from .context import ToolContext, ToolResult
from .get_run import RunId
from .status import shown_size


class Deleted(ToolResult):
    """The run that was removed."""

    run_id: str
    freed_mb: float
    next: str

    def text(self) -> str:
        freed = shown_size(self.freed_mb * 1e6)
        return f"Removed run {self.run_id}; {freed} are free again.\nNext: {self.next}"


async def delete_run(
    context: ToolContext,
    run_id: RunId,
    confirmed: Annotated[bool, Field(description="The user has agreed to this removal.")] = False,
) -> Deleted:
    """Remove an ended run permanently, with its adapter, checkpoints, exports in its folder and log.

    The user has to agree first. Files that it wrote elsewhere stay.
    """
    run = await anyio.to_thread.run_sync(context.service.store.find, run_id)
    await anyio.to_thread.run_sync(context.service.store.require_ended, run)
    size = await anyio.to_thread.run_sync(run.size)
    if not confirmed:
        raise ConfirmationNeededError(
            f"Remove run {run.run_id} permanently, with its adapter and all its files ({shown_size(size)})?",
        )
    deleted = await context.service.delete(run.run_id)
    return Deleted(run_id=deleted, freed_mb=size / 1e6, next="list_runs() shows the others.")
