"""Telemetry that is asked for and cannot be had is said, and stops nothing."""

from __future__ import annotations

import logging
import sys

import pytest

from backpropagate.training.telemetry import configure_telemetry


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "backpropagate-mcp[observability]"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL is not http/protobuf"),
    ],
)
def test_what_is_missing_is_said_once_in_the_log(
    variables: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.metric_exporter", None)
    with caplog.at_level(logging.WARNING):
        configure_telemetry()
    assert said in caplog.text
