"""A GGUF, and a server to register it with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from ollama_stand_in import OllamaStandIn
from tiny_gguf import write_gguf


@pytest.fixture(autouse=True)
def no_real_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that forgets to name a server must not find somebody's."""
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    for name in os.environ:
        if name.casefold().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "tiny.Q8_0.gguf")


@pytest.fixture
def server(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[OllamaStandIn]:
    """The newest kind of server, or the version that a test is parametrised with."""
    folder = tmp_path / "blobs"
    folder.mkdir()
    with OllamaStandIn(folder, getattr(request, "param", "0.34.1")) as stand_in:
        monkeypatch.setenv("OLLAMA_HOST", stand_in.host)
        yield stand_in
