"""push_to_hub: publish an adapter, or a merged model, on the Hugging Face Hub."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import anyio.to_thread
from pydantic import Field

from ..training.config.fields import RepoName
from ..training.config.results import PushResult
from ..training.requests.push import push_spec
from ..training.runs.folder import Status
from ..training.runs.view import RunView
from .context import ToolContext, ToolResult
from .follow import WaitSeconds, follow_or_raise
from .get_run import RunId


class Publication(ToolResult):
    """What is on the Hub now, or how far the upload is."""

    run_id: str
    status: str
    phase: str | None = None
    url: str | None = None
    private: bool | None = None
    files: list[str] = Field(default_factory=list[str])
    next: str

    def text(self) -> str:
        if self.url is None:
            return f"Push {self.run_id}: {self.status}, {self.phase or 'starting'}.\nNext: {self.next}"
        visibility = "private" if self.private else "public"
        return f"Published: {self.url} ({visibility}): {', '.join(self.files)}.\nNext: {self.next}"


async def push_to_hub(
    context: ToolContext,
    run_id: RunId,
    repo: RepoName,
    private: Annotated[
        bool, Field(description="A new repository is private; one that is there stays as visible as it is.")
    ] = True,
    overwrite: Annotated[bool, Field(description="Replace other weights that the repository holds.")] = False,
    wait_s: WaitSeconds = 50,
) -> Publication:
    """Publish a run's adapter, or a merged export, with its model card on the Hugging Face Hub.

    Ask the user first, and make public only what the user wants public. The token comes from HF_TOKEN or
    `hf auth login`. A push that was interrupted goes on when it is asked for again.
    """
    make = partial(push_spec, run_id, repo, context.service.store, context.paths)
    spec = await anyio.to_thread.run_sync(partial(make, private=private, overwrite=overwrite))
    submission = await context.service.submit(spec, find_equal=True)
    return _publication(await follow_or_raise(context, submission, wait_s))


def _publication(view: RunView) -> Publication:
    status = Publication(
        run_id=view.run_id, status=view.status.value, phase=view.phase, next=_next_step(view)
    )
    if not isinstance(view.result, PushResult):
        return status
    pushed = view.result.model_dump(include={"url", "private", "files"})
    return status.model_copy(update=pushed)


def _next_step(view: RunView) -> str:
    match view.status:
        case Status.COMPLETED:
            return "Give the user the address."
        case Status.QUEUED | Status.RUNNING:
            return f'get_run(run_id="{view.run_id}", wait_s=50) to follow the upload; cancel_run to stop it.'
        case _:
            return "The repository is as it was; push_to_hub again goes on with the upload."
