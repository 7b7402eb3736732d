"""The official Python client with tasks: a call that becomes a task returns when the task has ended."""

from __future__ import annotations

from typing import Any, Literal

import anyio
from mcp import MCPError
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim
from mcp.types import CallToolResult, Request, RequestParams, Result


class Handle(Result):
    """The answer that creates a task."""

    result_type: Literal["task"] = "task"
    task_id: str
    status_message: str
    poll_interval_ms: int


class TaskParams(RequestParams):
    task_id: str


class GetTask(Request[TaskParams, Literal["tasks/get"]]):
    method: Literal["tasks/get"] = "tasks/get"
    params: TaskParams


class TaskState(Result):
    status: str
    status_message: str
    result: dict[str, Any] | None = None


class TaskClient(ClientExtension):
    """Polls each task to its end.

    Attributes:
        told: the messages of the tasks, in order.
    """

    identifier = "io.modelcontextprotocol/tasks"

    def __init__(self) -> None:
        self.told: list[str] = []

    def claims(self) -> list[ResultClaim[Any]]:
        return [ResultClaim(result_type="task", model=Handle, resolve=self._resolve)]

    async def _resolve(self, handle: Handle, context: ClaimContext) -> CallToolResult:
        self.told.append(handle.status_message)
        request = GetTask(params=TaskParams(task_id=handle.task_id))
        while (state := await context.session.send_request(request, TaskState)).status == "working":
            self.told.append(state.status_message)
            await anyio.sleep(0.1)
        self.told.append(state.status_message)
        if state.result is None:
            raise MCPError(-32000, state.status_message)
        return CallToolResult.model_validate(state.result)
