"""OpenTelemetry: off unless its SDK is installed and OTEL_EXPORTER_OTLP_… says where to send to.

There is no other telemetry. Spans and metrics hold names of tools, ids of runs, codes and times: no text.
"""

from __future__ import annotations

import os

from .logs import logger

SERVICE = "backpropagate"
ENDPOINTS = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
)
PROTOCOL = "http/protobuf"
FLUSH_MS = 5_000


def is_configured() -> bool:
    """Whether the user has said where to send to."""
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").casefold() == "true"
    return not disabled and any(map(os.environ.get, ENDPOINTS))


def configure_telemetry() -> None:
    """Send this process's spans and metrics, if that is configured."""
    if not is_configured():
        return
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", PROTOCOL)
    if protocol != PROTOCOL:
        logger().warning("telemetry_is_off", reason=f"OTEL_EXPORTER_OTLP_PROTOCOL is not {PROTOCOL}.")
        return
    try:
        _export()
    except ImportError:
        logger().warning("telemetry_is_off", hint='pip install "backpropagate-mcp[observability]"')


def _export() -> None:
    from opentelemetry import metrics, trace
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = "OTEL_SERVICE_NAME" in os.environ
    resource = Resource.create({} if named else {"service.name": SERVICE})
    if os.environ.get("OTEL_TRACES_EXPORTER") != "none":
        tracers = TracerProvider(resource=resource)
        tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(tracers)
    if os.environ.get("OTEL_METRICS_EXPORTER") != "none":
        reader = PeriodicExportingMetricReader(OTLPMetricExporter())
        metrics.set_meter_provider(MeterProvider([reader], resource=resource))


def flush_telemetry() -> None:
    """Send what waits, in a process that may end by `os._exit`."""
    if not is_configured():
        return
    from opentelemetry import metrics, trace

    for provider in (trace.get_tracer_provider(), metrics.get_meter_provider()):
        flush = getattr(provider, "force_flush", None)  # the provider of a process without the SDK has none
        if flush is not None:
            flush(FLUSH_MS)


def trace_environment() -> dict[str, str]:
    """What tells a child process of the span that is open: `TRACEPARENT` and its like."""
    if not is_configured():
        return {}
    from opentelemetry import propagate

    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return {name.upper(): value for name, value in carrier.items()}
