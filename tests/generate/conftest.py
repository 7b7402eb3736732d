"""A run that was taught one answer, in each test's own home."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from taught import teach

from backpropagate.training.runs.folder import RunFolder


@pytest.fixture(scope="session")
def taught_once(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return teach(tiny_model, tmp_path_factory.mktemp("taught"))


@pytest.fixture
def taught(taught_once: RunFolder, home: Path) -> RunFolder:
    """The run, copied: tests may change it."""
    target = home / "runs" / taught_once.run_id
    shutil.copytree(taught_once.path, target)
    return RunFolder(target)


@pytest.fixture
def kept(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Workers keep a model that has answered; they are ended after the test."""
    monkeypatch.setenv("BACKPROPAGATE_KEEP_MODEL_S", "600")
    yield
    for folder in home.glob("runs/*-generate-*"):
        with suppress(psutil.NoSuchProcess):
            worker = psutil.Process(RunFolder(folder).state().pid)
            if any("worker.main" in part for part in worker.cmdline()):
                worker.kill()
                worker.wait()
