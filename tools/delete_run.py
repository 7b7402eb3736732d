"""delete_run: remove an ended run and its files."""

from __future__ import annotations

from typing import Annotated

import anyio.to_thread
from pydantic import Field

from ..training.errors import ConfirmationNeededError
from ..training.runs.folder import RunFolder
from .context import ToolContext, ToolResult
from .get_run import RunId


class Deleted(ToolResult):
    """The run that was removed."""

    run_id: str
    freed_mb: float
    next: str

    def text(self) -> str:
        return f"Removed run {self.run_id}; {_shown(self.freed_mb)} are free again.\nNext: {self.next}"


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
    size_mb = await anyio.to_thread.run_sync(_megabytes, run)
    if not confirmed:
        raise ConfirmationNeededError(
            f"Remove run {run.run_id} permanently, with its adapter and all its files ({_shown(size_mb)})?",
        )
    deleted = await context.service.delete(run.run_id)
    return Deleted(run_id=deleted, freed_mb=size_mb, next="list_runs() shows the others.")


def _shown(size_mb: float) -> str:
    """`145 MB`."""
    return f"{size_mb:.4g} MB" if size_mb >= 1 else f"{size_mb * 1000:.0f} kB"


def _megabytes(run: RunFolder) -> float:
    """Size of the run folder."""
    return run.size() / 1e6
