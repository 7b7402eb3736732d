"""OpenTelemetry: nothing without its variables, and spans and metrics of calls and runs with them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from http_server import serving
from mcp import Client
from waiting import wait_until

from backpropagate.server.app import build_server
from backpropagate.training import telemetry
from backpropagate.training.service import TrainingService

pytest.importorskip("opentelemetry.sdk")
pytest.importorskip("opentelemetry.exporter.otlp.proto.http")

from opentelemetry import metrics, trace
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

pytestmark = pytest.mark.anyio

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def memory() -> tuple[InMemorySpanExporter, InMemoryMetricReader]:
    """The SDK with exporters in memory; a process can set it once."""
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(tracers)
    metrics.set_meter_provider(MeterProvider([reader]))
    return spans, reader


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", NOWHERE)


async def test_a_call_has_a_span_and_a_duration_with_its_outcome(
    service: TrainingService, memory: tuple[InMemorySpanExporter, InMemoryMetricReader], configured: None
) -> None:
    spans, reader = memory
    spans.clear()
    async with Client(build_server(service)) as client:
        await client.call_tool("list_runs", {})
        await client.call_tool("get_run", {"run_id": "my-secret"})
    told = {span.name: dict(span.attributes or {}) for span in spans.get_finished_spans()}
    assert told["tools/call list_runs"]["backpropagate.outcome"] == "ok"
    assert told["tools/call get_run"]["backpropagate.outcome"] == "INPUT_RUN_NOT_FOUND"
    assert "my-secret" not in str(told)
    data: Any = reader.get_metrics_data()
    found = [metric for scope in data.resource_metrics[0].scope_metrics for metric in scope.metrics]
    (durations,) = [metric for metric in found if metric.name == "backpropagate.call.duration"]
    points = {point.attributes["gen_ai.tool.name"]: point for point in durations.data.data_points}
    assert points["list_runs"].count == 1 and points["list_runs"].sum > 0
    assert points["get_run"].attributes["backpropagate.outcome"] == "INPUT_RUN_NOT_FOUND"


class Collector(BaseHTTPRequestHandler):
    """What OTLP over HTTP is sent to."""

    spans: ClassVar[list[Any]]
    metrics: ClassVar[list[Any]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            import gzip

            body = gzip.decompress(body)
        if self.path == "/v1/traces":
            request: Any = ExportTraceServiceRequest.FromString(body)
            found = [
                span for each in request.resource_spans for scope in each.scope_spans for span in scope.spans
            ]
            self.spans.extend(found)
        else:
            request = ExportMetricsServiceRequest.FromString(body)
            for each in request.resource_metrics:
                self.metrics.extend(metric for scope in each.scope_metrics for metric in scope.metrics)
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


@contextmanager
def collecting() -> Iterator[tuple[str, type[Collector]]]:
    class Own(Collector):
        spans: ClassVar[list[Any]] = []
        metrics: ClassVar[list[Any]] = []

    server = HTTPServer(("127.0.0.1", 0), Own)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", Own
    finally:
        server.shutdown()
        server.server_close()


async def test_the_span_of_a_run_is_below_that_of_the_call_that_started_it(
    tmp_path: Path, dataset: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the real exporters, from the server's process and from the worker's."""
    with collecting() as (endpoint, sent):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        with serving(tmp_path, "--root", str(tiny_model)) as server:
            async with server.client() as client:
                request = {"dataset": str(dataset), "model": str(tiny_model)}
                result = await client.call_tool("inspect_dataset", request)
                assert result.structured_content
            run_id = result.structured_content["run_id"]
            names = {"run inspect", "tools/call inspect_dataset"}
            wait_until(lambda: names <= {span.name for span in sent.spans}, "spans")
        (run,) = [span for span in sent.spans if span.name == "run inspect"]
        (call,) = [span for span in sent.spans if span.name == "tools/call inspect_dataset"]
        assert run.trace_id == call.trace_id and run.parent_span_id == call.span_id
        told = {entry.key: entry.value.string_value for entry in run.attributes}
        assert told["backpropagate.run.id"] == run_id and told["backpropagate.run.status"] == "completed"
        assert "backpropagate.run.duration" in {metric.name for metric in sent.metrics}


@pytest.mark.parametrize(
    ("variables", "on"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": NOWHERE}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": NOWHERE}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": NOWHERE, "OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_it_is_off_unless_its_standard_variables_say_where_to_send_to(
    variables: dict[str, str], on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in telemetry.ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert telemetry.is_configured() is on
    assert bool(telemetry.trace_environment()) is False  # no span is open
