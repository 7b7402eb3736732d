"""Waits for a run within one call and shows its progress; the run continues after the wait."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated

import anyio
from pydantic import Field

from ..training.config.specs import AnySpec
from ..training.errors import ConfirmationNeededError, from_record
from ..training.events import Evaluated, Event, Step, Warned
from ..training.runs.folder import Status
from ..training.runs.view import RunView
from ..training.service import Submission
from .context import ToolContext

WaitSeconds = Annotated[
    float,
    Field(ge=0, le=3600, description="Seconds to wait. The run continues after that."),
]
Confirmed = Annotated[bool, Field(description="The user has agreed to what this needs.")]
TICK_S = 0.25
REPEATS_S = 60.0
"""Clients send a call again when they lose its stream, so soon after the longest usual wait."""


async def follow(context: ToolContext, run_id: str, wait_s: float, *, stop_at_news: bool = False) -> RunView:
    """Show the run's progress until it has ended, or the call has taken `wait_s` seconds.

    Args:
        stop_at_news: also return when the run starts, is evaluated or warns.
    """
    with anyio.move_on_after(context.began + min(wait_s, context.longest_wait_s) - time.monotonic()):
        first = True
        async for events in context.service.watch(run_id, tick_s=TICK_S):
            await context.show(events)
            if stop_at_news and not first and _is_news(events):
                break
            first = False
    return await context.service.get(run_id)


async def follow_or_raise(context: ToolContext, submission: Submission, wait_s: float) -> RunView:
    """`follow`, for the call that submitted the run.

    Raises:
        BackpropagateError: the run failed; the error of its worker.
    """
    view = await follow(context, submission.run_id, wait_s)
    require_success(view)
    return view


def require_success(view: RunView) -> None:
    """Raises the error of the run's worker, if the run failed."""
    if view.error and view.status in {Status.FAILED, Status.INTERRUPTED}:
        error = view.error
        raise from_record(error.model_copy(update={"message": f"Run {view.run_id} failed. {error.message}"}))


async def submitted(
    context: ToolContext,
    spec: AnySpec,
    request_key: str | None = None,
    *,
    new_run: bool = False,
    confirmed: bool,
) -> Submission:
    """Start the run of a request, or find the one that the same request has started.

    Raises:
        ConfirmationNeededError: it needs more than the user permits without a question.
    """
    limits = context.service.settings.limits

    def require_consent() -> None:
        from ..training.requests.needs import needs_of, question  # here: a server starts sooner

        if beyond := needs_of(spec, context.service.store).beyond(limits):
            raise ConfirmationNeededError(question(spec, beyond))

    return await context.service.submit(
        spec,
        request_key=request_key,
        find_equal=not new_run,
        repeats_s=REPEATS_S,
        approve=None if confirmed or not limits.are_set else require_consent,
    )


def submission_note(submission: Submission, request_key: str | None) -> str | None:
    """What a caller should know if there is an earlier run of the same request."""
    if submission.stopped:
        return (
            f"The same request was stopped before (run {submission.stopped}). This is a new run from the "
            "start; resume_run resumes the stopped one."
        )
    if submission.resumable:
        return (
            f"A multi-run with the same model and data was stopped before (run {submission.resumable}). This "
            "is a new run from the start; resume_run resumes the stopped one."
        )
    if not submission.existing:
        return None
    if submission.repeated:
        return (
            f"The same request started run {submission.run_id} less than {REPEATS_S:g} s ago. This one is "
            "taken for its repetition, and no new run was started. Another run needs a request_key."
        )
    if submission.by_key:
        return (
            f"Same request_key {request_key!r} as run {submission.run_id}, which already exists; "
            "no new run was started. Another run needs a new request_key."
        )
    named = f" request_key {request_key!r} now names it." if request_key else ""
    another = "Set new_run=true, with a new request_key," if request_key else "Set new_run=true"
    return (
        f"Same request (settings and dataset content) as run {submission.run_id}, which already exists; "
        f"no new run was started.{named} {another} to start another."
    )


def _is_news(events: Sequence[Event]) -> bool:
    return any(
        isinstance(event, Evaluated | Warned) or (isinstance(event, Step) and event.step == 1)
        for event in events
    )
