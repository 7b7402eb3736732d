"""The log lines of a run."""

from __future__ import annotations

import json
import logging

import pytest

from backpropagate.training.config.settings import load_settings
from backpropagate.training.logs import configure_logging, lines_of_run, logger


def test_each_line_of_a_run_has_its_id_those_of_libraries_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKPROPAGATE_LOG_JSON", "1")
    before = logging.getLogger().handlers[:]
    try:
        configure_logging(load_settings())
        with lines_of_run("20261122T090712.345Z-smollm2-a7f3"):
            logger().warning("ours")
            logging.getLogger("a_library").warning("theirs")
        logger().warning("after")
    finally:
        logging.getLogger().handlers[:] = before
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line.get("run_id", "")[:8] for line in lines] == ["20261122", "20261122", ""]
