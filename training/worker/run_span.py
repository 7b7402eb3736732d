"""The OpenTelemetry span and metric of a run, below the span of the call that started it."""

from __future__ import annotations

import os
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress

from ..errors import StateError
from ..runs.folder import RunFolder, RunState, Status
from ..telemetry import SERVICE, flush_telemetry, is_configured


@contextmanager
def run_span(run: RunFolder) -> Generator[None]:
    """A span around the work on a run, with how it ended; nothing if telemetry is off."""
    if not is_configured():
        yield
        return
    from opentelemetry import metrics, propagate, trace

    kind = run.state().kind
    caller = propagate.extract({name.casefold(): value for name, value in os.environ.items()})
    durations = metrics.get_meter(SERVICE).create_histogram(
        "backpropagate.run.duration", "s", "From the worker's start to the end of the run."
    )
    began = time.monotonic()
    tracer = trace.get_tracer(SERVICE)
    with tracer.start_as_current_span(f"run {kind}", caller, trace.SpanKind.CONSUMER) as span:
        span.set_attributes({"backpropagate.run.id": run.run_id, "backpropagate.run.kind": kind})
        try:
            yield
        finally:
            with suppress(StateError):
                state = run.state()
                span.set_attributes(_outcome(state))
                if state.status is Status.FAILED:
                    span.set_status(trace.StatusCode.ERROR)
                told = {"backpropagate.run.kind": kind, **_outcome(state)}
                durations.record(time.monotonic() - began, told)
    flush_telemetry()


def _outcome(state: RunState) -> dict[str, str]:
    code = {"error.type": state.error.code} if state.error else {}
    return {"backpropagate.run.status": state.status.value, **code}
