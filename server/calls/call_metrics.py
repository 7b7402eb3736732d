"""OpenTelemetry's metrics of tool calls, and what their spans (which the SDK opens) say of the run."""

from __future__ import annotations

import time
from typing import Any

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from opentelemetry import metrics, trace

from ...training.telemetry import SERVICE
from .audit import on_the_wire, outcome_of, tool_name


class CallMetrics:
    """Middleware of the MCP server; without a provider it measures for nobody."""

    def __init__(self) -> None:
        self._durations = metrics.get_meter(SERVICE).create_histogram(
            "backpropagate.call.duration", "s", "Of a tool call, until its answer."
        )

    async def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        if ctx.method != "tools/call":
            return await call_next(ctx)
        began, outcome = time.monotonic(), "failed"
        try:
            result = await call_next(ctx)
            answer = on_the_wire(result)
            outcome = outcome_of(answer)
            fields: dict[str, Any] = answer.get("structuredContent") or {}
            run_id = fields.get("run_id")
            if isinstance(run_id, str):
                trace.get_current_span().set_attribute("backpropagate.run.id", run_id)
            return result
        finally:
            trace.get_current_span().set_attribute("backpropagate.outcome", outcome)
            told = {"gen_ai.tool.name": tool_name(ctx.params), "backpropagate.outcome": outcome}
            self._durations.record(time.monotonic() - began, told)
