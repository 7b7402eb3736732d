"""push_to_hub: publish an adapter, or a merged model, on the Hugging Face Hub."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import anyio.to_thread
from pydantic import Field

from ..training.config.fields import RepoName
from ..training.config.results import PushResult
from ..training.errors import ConfirmationNeededError
from ..training.requests.push import push_spec
from ..training.runs.folder import Status
from ..training.runs.view import RunView
from .context import ToolContext, ToolResult
from .follow import WaitSeconds, follow_or_raise
from .get_run import RunId


class Publication(ToolResult):
    """The published repository, or the progress of the upload."""

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
        bool,
        Field(description="Create a new repository as private; an existing repository keeps its visibility."),
    ] = True,
    overwrite: Annotated[bool, Field(description="Replace other weights in the repository.")] = False,
    confirmed: Annotated[bool, Field(description="The user has agreed to this upload.")] = False,
    wait_s: WaitSeconds = 50,
) -> Publication:
    """Publish a run's adapter, or a merged export, with its model card on the Hugging Face Hub.

    The user has to agree first. The token comes from HF_TOKEN or `hf auth login`. An interrupted upload
    resumes when the push is requested again.
    """
    make = partial(push_spec, run_id, repo, context.service.store, context.paths)
    spec = await anyio.to_thread.run_sync(partial(make, private=private, overwrite=overwrite))
    if not confirmed:
        seen = "only you and whom you permit can see" if private else "everyone can see"
        raise ConfirmationNeededError(
            f"Publish the model of run {spec.run or run_id} in {repo} on the Hugging Face Hub? "
            f"A new repository is one that {seen}.",
        )
    submission = await context.service.submit(spec, find_equal=True)
    return publication(await follow_or_raise(context, submission, wait_s))


def publication(view: RunView, _note: str | None = None) -> Publication:
    """The run of a push as its tool shows it."""
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
            return "Give the URL to the user."
        case Status.QUEUED | Status.RUNNING:
            return f'get_run(run_id="{view.run_id}", wait_s=50) to follow the upload; cancel_run to stop it.'
        case _:
            return "The repository is unchanged; push_to_hub again resumes the upload."
