"""Tasks that are runs: a call that starts a run is answered with a task, whose state is read from the run."""

from __future__ import annotations

from functools import partial
from typing import Any

import anyio.to_thread
from mcp import MCPError
from mcp.server.context import CallNext, HandlerResult
from mcp.types import INTERNAL_ERROR, INVALID_PARAMS, CallToolRequestParams, CallToolResult

from ...tools import TOOLS
from ...tools.follow import require_success
from ...tools.status import next_step, run_status
from ...tools.wording import words
from ...training.errors import BackpropagateError, RunInterruptedError, RunNotFoundError, from_record
from ...training.events import Done, Failed, Queued
from ...training.logs import logger
from ...training.redact import scrub
from ...training.runs.folder import ENDED, RunFolder, Status
from ...training.runs.identity import now
from ...training.runs.view import RunView
from ...training.service import TrainingService
from ...training.untrusted import one_line, shown_path
from ..answer import answer_of
from ..error_result import error_result
from .protocol import DONE, RequestContext, Task, TaskStatus
from .task_files import KEPT_S, TaskFiles, TaskRecord

OF_RUN = {tool.name: tool.of_run for tool in TOOLS if tool.of_run is not None}
"""The tools whose calls become tasks, and what each tells of its run."""

MESSAGE_LENGTH = 600  # characters


class RunTasks:
    """The tasks of a service's runs; nothing of them is in memory."""

    def __init__(self, service: TrainingService) -> None:
        self._service = service
        self._files = TaskFiles(service.settings.home / "tasks")

    async def begin(
        self, call: CallToolRequestParams, ctx: RequestContext, call_next: CallNext, principal: str | None
    ) -> Task | HandlerResult:
        answer = await call_next(ctx)
        if call.name not in OF_RUN or not isinstance(answer, CallToolResult) or answer.is_error:
            return answer
        told: dict[str, Any] = answer.structured_content or {}
        try:
            view = await self._service.of(principal).get(told["run_id"])
            if view.status in ENDED:
                return answer
            made = partial(self._files.create, view, call.name, principal, told.get("note"))
            return _task(await anyio.to_thread.run_sync(made), view)
        except (BackpropagateError, OSError) as error:
            _could_not_write(error)
            return answer  # the run has started, and this names it

    async def find(self, task_id: str, principal: str | None) -> Task | None:
        record = await anyio.to_thread.run_sync(self._files.find, task_id, principal)
        if record is None or record.end is not None:
            return record and record.end
        task = await self._state(record)
        if task.has_ended:
            try:
                await anyio.to_thread.run_sync(self._files.write, record.model_copy(update={"end": task}))
            except (BackpropagateError, OSError) as error:
                _could_not_write(error)
        return task

    async def _state(self, record: TaskRecord) -> Task:
        service = self._service.of(record.principal)
        try:
            view = await service.get(record.run_id)
            if view.attempt == record.attempt:
                return _task(record, view)
            run = service.store.find(record.run_id)
            return await anyio.to_thread.run_sync(_earlier_attempt, record, run, view)
        except RunNotFoundError as error:
            problem = {"code": INVALID_PARAMS, "message": _message(record, error.sentence(words))}
            return _of(record, "failed", error.sentence(words), now(), {"error": problem})
        except BackpropagateError as error:  # its folder cannot be read now
            return _of(record, "working", error.sentence(words), now())

    async def cancel(self, task: Task) -> None:
        record = await anyio.to_thread.run_sync(self._files.find, task.task_id, None)
        if record is None:
            return
        try:
            await self._service.of(record.principal).cancel(record.run_id, "the task was cancelled")
        except BackpropagateError as error:
            raise MCPError(INTERNAL_ERROR, _message(record, error.sentence(words))) from None

    async def give(self, task: Task, responses: dict[str, Any]) -> None:
        """A run asks nothing."""


def _task(record: TaskRecord, view: RunView) -> Task:
    """The task of the run's current attempt."""
    if view.status not in ENDED:
        progress = run_status(view).progress()
        return _of(record, "working", ", ".join(filter(None, [view.status, progress])), now())
    ended_at = view.ended_at or now()
    if view.status is Status.CANCELLED:
        message = f"cancelled at step {view.step}. {_saved(view)}{next_step(view)}"
        return _of(record, "cancelled", message, ended_at)
    try:
        require_success(view)
    except BackpropagateError as error:
        return _ended_with(record, error, ended_at)
    result = answer_of(OF_RUN[record.tool](view, record.note))
    return _of(record, "completed", "completed.", ended_at, {"result": _wire(result)})


def _earlier_attempt(record: TaskRecord, run: RunFolder, view: RunView) -> Task:
    """The end of an attempt after which the run was resumed; only one that did not complete can be."""
    end = _end_of_attempt(run, record.attempt)
    since = f"The run was resumed since (attempt {view.attempt})."
    if isinstance(end, Done):
        return _of(record, "cancelled", f"cancelled. {_saved(view)}{since}", end.t)
    if isinstance(end, Failed) and end.error is not None:
        return _ended_with(record, from_record(end.error), end.t)
    interrupted = RunInterruptedError(f"Run {record.run_id} was interrupted. {since}")
    return _ended_with(record, interrupted, now())


def _end_of_attempt(run: RunFolder, attempt: int) -> Done | Failed | None:
    """Its last event; None if its worker died without one."""
    end: Done | Failed | None = None
    for event in run.events()[0]:
        if isinstance(event, Queued):
            if event.attempt > attempt:
                break
            end = None
        elif isinstance(event, Done | Failed):
            end = event
    return end


def _saved(view: RunView) -> str:
    """A cancelled task has no result: the adapter is named in its message or nowhere."""
    return f"Adapter: {shown_path(view.adapter_path)}. " if view.adapter_path else ""


def _ended_with(record: TaskRecord, error: BackpropagateError, ended_at: str) -> Task:
    """A tool's error is a completed call; a task fails by errors of the protocol only."""
    return _of(record, "completed", error.sentence(words), ended_at, {"result": _wire(error_result(error))})


def _wire(result: CallToolResult) -> dict[str, Any]:
    return {**DONE, **result.model_dump(mode="json", by_alias=True, exclude_none=True)}


def _of(
    record: TaskRecord,
    status: TaskStatus,
    message: str,
    updated_at: str,
    outcome: dict[str, Any] | None = None,
) -> Task:
    return Task(
        task_id=record.task_id,
        status=status,
        message=_message(record, message),
        created_at=record.created_at,
        updated_at=updated_at,
        ttl_ms=KEPT_S * 1000,
        outcome=outcome or {},
    )


def _message(record: TaskRecord, text: str) -> str:
    """Begins with the run's id: while a task works, a model sees nothing else by which to ask for the run."""
    return one_line(scrub(f"{record.run_id}: {text}"), MESSAGE_LENGTH)


def _could_not_write(error: Exception) -> None:
    logger().warning("task_not_written", error=type(error).__name__, untrusted=str(error))
