"""Long calls as tasks (SEP-2663): the client gets a handle at once, and asks with it for the end.

Only a client that declares the extension gets tasks, since others cannot read such an answer. This half knows
the protocol and no runs: a `TaskSource` decides which calls become tasks, and keeps them.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

from mcp import MCPError
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.extension import Extension, MethodBinding
from mcp.server.mcpserver import require_client_extension
from mcp.shared.inbound import MCP_NAME_HEADER, decode_header_value
from mcp.types import HEADER_MISMATCH, INVALID_PARAMS, CallToolRequestParams, RequestParams
from pydantic import BaseModel, ConfigDict, Field

from ..principal import principal_of

EXTENSION = "io.modelcontextprotocol/tasks"
VERSIONS = frozenset({"2026-07-28"})
"""Of the protocol: in older ones, tasks were something else."""

POLL_MS = 2_000
DONE: dict[str, Any] = {"resultType": "complete"}

TaskStatus = Literal["working", "input_required", "completed", "failed", "cancelled"]
RequestContext = ServerRequestContext[Any, Any]


class Task(BaseModel):
    """A call that goes on after its answer.

    Args:
        task_id: a secret of whoever made the call.
        message: all that a model sees of the call before its end.
        ttl_ms: how long after its creation the task is known; None: always.
        outcome: what only `tasks/get` tells: `result` of a completed task, `error` of a failed one,
            `inputRequests` of one that waits for input.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    task_id: str
    status: TaskStatus
    message: str
    created_at: str
    updated_at: str
    ttl_ms: int | None
    outcome: dict[str, Any] = {}

    @property
    def has_ended(self) -> bool:
        return self.status in {"completed", "failed", "cancelled"}

    def handle(self) -> dict[str, Any]:
        """The fields of the answer that creates the task."""
        return {
            "taskId": self.task_id,
            "status": self.status,
            "statusMessage": self.message,
            "createdAt": self.created_at,
            "lastUpdatedAt": self.updated_at,
            "ttlMs": self.ttl_ms,
            "pollIntervalMs": POLL_MS,
        }


class TaskSource(Protocol):
    """Makes and keeps tasks. Those of another principal are unknown to it."""

    async def begin(
        self, call: CallToolRequestParams, ctx: RequestContext, call_next: CallNext, principal: str | None
    ) -> Task | HandlerResult:
        """Carry out a call: a task that can be found from now on, or the plain answer."""
        ...

    async def find(self, task_id: str, principal: str | None) -> Task | None: ...

    async def cancel(self, task: Task) -> None:
        """Ask a task that has not ended to end; does not wait for it."""
        ...

    async def give(self, task: Task, responses: dict[str, Any]) -> None:
        """Pass on the client's answers to the task's `inputRequests`."""
        ...


class TaskParams(RequestParams):
    """Of `tasks/get` and `tasks/cancel`."""

    task_id: str


class UpdateParams(TaskParams):
    """Of `tasks/update`."""

    input_responses: dict[str, Any] = Field(default_factory=dict[str, Any])


def gets_tasks(ctx: RequestContext) -> bool:
    """Whether this request's client understands tasks."""
    capabilities = ctx.session.client_capabilities
    declared = capabilities.extensions if capabilities else None
    return ctx.protocol_version in VERSIONS and EXTENSION in (declared or {})


class Tasks(Extension):
    """The extension: answers calls with tasks, and `tasks/get`, `tasks/cancel` and `tasks/update`."""

    identifier = EXTENSION

    def __init__(self, source: TaskSource) -> None:
        self._source = source

    def methods(self) -> list[MethodBinding]:
        return [
            MethodBinding("tasks/get", TaskParams, self._get, VERSIONS),
            MethodBinding("tasks/cancel", TaskParams, self._cancel, VERSIONS),
            MethodBinding("tasks/update", UpdateParams, self._update, VERSIONS),
        ]

    async def intercept_tool_call(
        self, params: CallToolRequestParams, ctx: RequestContext, call_next: CallNext
    ) -> HandlerResult:
        if not gets_tasks(ctx):
            return await call_next(ctx)
        begun = await self._source.begin(params, ctx, call_next, principal_of(ctx.request))
        return {"resultType": "task", **begun.handle()} if isinstance(begun, Task) else begun

    async def _get(self, ctx: RequestContext, params: TaskParams) -> dict[str, Any]:
        task = await self._find(ctx, params)
        return {**DONE, **task.handle(), **task.outcome}

    async def _cancel(self, ctx: RequestContext, params: TaskParams) -> dict[str, Any]:
        task = await self._find(ctx, params)
        if not task.has_ended:
            await self._source.cancel(task)
        return DONE

    async def _update(self, ctx: RequestContext, params: UpdateParams) -> dict[str, Any]:
        task = await self._find(ctx, params)
        if not task.has_ended:
            await self._source.give(task, params.input_responses)
        return DONE

    async def _find(self, ctx: RequestContext, params: TaskParams) -> Task:
        require_client_extension(ctx, EXTENSION)
        _require_same_name(ctx, params.task_id)
        task = await self._source.find(params.task_id, principal_of(ctx.request))
        if task is None:
            raise MCPError(INVALID_PARAMS, "There is no such task.")
        return task


def _require_same_name(ctx: RequestContext, task_id: str) -> None:
    """Over HTTP, proxies route by the header; the SDK compares those of its own methods only."""
    headers = getattr(ctx.request, "headers", None)
    if headers is not None and decode_header_value(headers.get(MCP_NAME_HEADER)) != task_id:
        raise MCPError(HEADER_MISMATCH, f"The header {MCP_NAME_HEADER} is not the taskId of the request.")
