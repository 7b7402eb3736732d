"""Tasks in memory behind the product's protocol half, and the tools that the conformance suite calls."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from fixture_contents import answer, text
from fixture_questions import Asking, asks, name_question, question, said
from mcp import MCPError
from mcp.server.context import CallNext, HandlerResult
from mcp.server.mcpserver import require_client_extension
from mcp.server.mcpserver.tools import Tool
from mcp.types import (
    INTERNAL_ERROR,
    CallToolRequestParams,
    CallToolResult,
    ElicitRequest,
    InputRequiredResult,
)

from backpropagate.server.tasks.protocol import DONE, EXTENSION, RequestContext, Task, TaskStatus
from backpropagate.training.runs.identity import now

TTL_MS = 3_600_000
SLOW_S = 1.0


@dataclass
class Job:
    """A task and what carries it out."""

    task: Task
    work: asyncio.Task[None] | None = None
    questions: dict[str, asyncio.Future[Any]] = field(default_factory=dict)

    def becomes(self, status: TaskStatus, **outcome: Any) -> None:
        if not self.task.has_ended:
            change = {"status": status, "message": status, "updated_at": now(), "outcome": outcome}
            self.task = self.task.model_copy(update=change)

    async def ask(self, **requests: ElicitRequest) -> dict[str, Any]:
        """Wait until the client has answered all of them."""
        self.questions = {key: asyncio.get_running_loop().create_future() for key in requests}
        self.becomes("input_required", inputRequests={key: _wire(asked) for key, asked in requests.items()})
        return {key: await future for key, future in list(self.questions.items())}

    def take(self, responses: dict[str, Any]) -> None:
        pending: dict[str, Any] = dict(self.task.outcome.get("inputRequests", {}))
        for key in pending.keys() & responses.keys():
            del pending[key]
            self.questions[key].set_result(responses[key])
        if pending:
            self.becomes("input_required", inputRequests=pending)
        else:
            self.becomes("working")


Body = Callable[[dict[str, Any], Job], Awaitable[CallToolResult]]


class MemoryTasks:
    """A `TaskSource` whose tasks end with the server."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}

    async def begin(
        self, call: CallToolRequestParams, ctx: RequestContext, call_next: CallNext, principal: str | None
    ) -> Task | HandlerResult:
        if call.name not in BODIES and call.name != test_tool_with_task.__name__:
            return await call_next(ctx)
        body = BODIES.get(call.name)
        if body is None:  # asks before it becomes a task
            result = await call_next(ctx)
            if not isinstance(result, CallToolResult):
                return result
            body = _slowly(result)
        job = Job(_new_task())
        self._jobs[job.task.task_id] = job
        job.work = asyncio.get_running_loop().create_task(_carry_out(job, body, call.arguments or {}))
        return job.task

    async def find(self, task_id: str, principal: str | None) -> Task | None:
        job = self._jobs.get(task_id)
        return job.task if job else None

    async def cancel(self, task: Task) -> None:
        job = self._jobs[task.task_id]
        assert job.work
        job.work.cancel()
        job.becomes("cancelled")

    async def give(self, task: Task, responses: dict[str, Any]) -> None:
        self._jobs[task.task_id].take(responses)


def _new_task() -> Task:
    made = now()
    return Task(
        task_id=secrets.token_urlsafe(24),
        status="working",
        message="working",
        created_at=made,
        updated_at=made,
        ttl_ms=TTL_MS,
    )


async def _carry_out(job: Job, body: Body, arguments: dict[str, Any]) -> None:
    try:
        job.becomes("completed", result={**DONE, **_wire(await body(arguments, job))})
    except MCPError as error:
        job.becomes("failed", error={"code": error.error.code, "message": error.error.message})


def _wire(value: Any) -> dict[str, Any]:
    return value.model_dump(mode="json", by_alias=True, exclude_none=True)


def _slowly(result: CallToolResult) -> Body:
    async def body(_arguments: dict[str, Any], _job: Job) -> CallToolResult:
        await asyncio.sleep(SLOW_S / 10)
        return result

    return body


# --- what the tasks do ------------------------------------------------------------------------------------
async def _compute(arguments: dict[str, Any], _job: Job) -> CallToolResult:
    await asyncio.sleep(arguments.get("seconds", 0))
    return answer(f"Computed {arguments.get('label', '')}")


async def _fail(_arguments: dict[str, Any], _job: Job) -> CallToolResult:
    await asyncio.sleep(SLOW_S)
    return answer("The job failed, as it always does.", is_error=True)


async def _break(_arguments: dict[str, Any], _job: Job) -> CallToolResult:
    raise MCPError(INTERNAL_ERROR, "The job broke, as it always does.")


async def _confirm(arguments: dict[str, Any], job: Job) -> CallToolResult:
    asked = question(f"Delete {arguments.get('filename')}?", confirm={"type": "boolean"})
    replies = await job.ask(confirm=asked)
    confirmed = replies["confirm"].get("content", {}).get("confirm")
    return answer("Deleted." if confirmed else "Kept.")


async def _ask_twice(_arguments: dict[str, Any], job: Job) -> CallToolResult:
    replies = await job.ask(first=name_question("Who is first?"), second=name_question("Who is second?"))
    return answer(f"Heard {len(replies)} replies.")


BODIES: dict[str, Body] = {
    "slow_compute": _compute,
    "failing_job": _fail,
    "protocol_error_job": _break,
    "confirm_delete": _confirm,
    "multi_input": _ask_twice,
}


# --- the same for clients without tasks -------------------------------------------------------------------
def greet(name: str) -> str:
    """Answers at once; never a task."""
    return f"Hello, {name}!"


async def slow_compute(seconds: float = 0, label: str = "") -> CallToolResult:
    """Takes as long as it is told."""
    return await _compute({"seconds": seconds, "label": label}, Job(_new_task()))


def failing_job(context: Asking) -> CallToolResult:
    """Always fails, and is always a task."""
    require_client_extension(context.request_context, EXTENSION)
    return answer("The job failed.", is_error=True)


def protocol_error_job() -> CallToolResult:
    """Breaks by an error of the protocol."""
    raise MCPError(INTERNAL_ERROR, "The job broke, as it always does.")


def confirm_delete(filename: str = "") -> str:
    """Asks before it deletes."""
    return f"Kept {filename}: nobody could be asked."


def multi_input() -> str:
    """Asks two questions at once."""
    return "Nobody could be asked."


def test_tool_with_task(context: Asking) -> CallToolResult | InputRequiredResult:
    """Asks for a name before it becomes a task."""
    require_client_extension(context.request_context, EXTENSION)
    form = said(context, "user_name")
    if form is None:
        return asks(user_name=name_question())
    return CallToolResult(content=[text(f"Hello, {form.get('name')}!")])


def task_tools() -> list[Tool]:
    functions = (
        greet, slow_compute, failing_job, protocol_error_job, confirm_delete, multi_input,
        test_tool_with_task,
    )  # fmt: skip
    return [Tool.from_function(function, structured_output=False) for function in functions]
