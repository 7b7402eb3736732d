"""What a run would need, and the question before one that needs more than the user permits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from finished_runs import finished_run
from mcp import Client
from mcp.types import TextContent
from measured_gpus import with_gpus

from backpropagate.server.app import build_server
from backpropagate.training.config.settings import LimitSettings, load_settings
from backpropagate.training.config.specs import DataGroup, ExportSpec, ModelGroup, TrainingGroup, TrainSpec
from backpropagate.training.requests.needs import Needs, needs_of
from backpropagate.training.runs.store import RunStore
from backpropagate.training.service import TrainingService


def training(model: str, *, four_bit: bool = False, steps: int | None = None) -> TrainSpec:
    return TrainSpec(
        model=ModelGroup(name=model, load_in_4bit=four_bit),
        data=DataGroup(source="/a.jsonl"),
        training=TrainingGroup(steps=steps),
    )


@pytest.fixture
def store(service: TrainingService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunStore:
    """No model is downloaded; the GPU has 24 GiB."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    with_gpus(monkeypatch, 24)
    return service.store


def test_the_size_is_that_of_the_preset_of_the_folder_or_in_the_name(
    store: RunStore, tiny_model: Path
) -> None:
    preset = needs_of(training("qwen2.5-7b"), store)
    assert preset.disk_gb == pytest.approx(15.23 + 1.45 + 0.16, abs=0.01)
    assert preset.gpu_gib is not None and 18 < preset.gpu_gib < 24
    named = needs_of(training("Qwen/Qwen3-14B", four_bit=True), store)
    assert named.disk_gb == pytest.approx(28 + 2.5 + 0.3, abs=0.2)
    assert named.gpu_gib is not None and 12 < named.gpu_gib < 24
    folder = needs_of(training(str(tiny_model)), store)
    assert folder.disk_gb == pytest.approx(0, abs=0.01)
    assert folder.gpu_gib is not None and 1 < folder.gpu_gib < 3
    assert needs_of(training("me/unknown"), store) == Needs(None, None, None)


def test_an_export_needs_the_size_of_its_file_and_of_the_base(store: RunStore) -> None:
    file = ExportSpec(model=ModelGroup(name="qwen2.5-7b"), quantization="q8_0")
    assert needs_of(file, store).disk_gb == pytest.approx(7.6153 * 1.07 + 15.2306, rel=1e-4)


def test_the_time_is_that_of_an_earlier_training_of_the_model(store: RunStore) -> None:
    assert needs_of(training("me/own-1b", steps=100), store).hours is None
    run = finished_run(store, training("me/own-1b"), {"steps": 10, "total_steps": 10})
    began = datetime.now(UTC) - timedelta(seconds=360)
    state = run.state()
    run.write_state(state.model_copy(update={"started_at": began.isoformat()}))
    assert needs_of(training("me/own-1b", steps=100), store).hours == pytest.approx(1.0, rel=0.1)
    assert needs_of(training("me/own-1b"), store).hours is None
    assert needs_of(training("me/other-1b", steps=100), store).hours is None


def test_what_is_unknown_may_be_beyond_a_limit(store: RunStore) -> None:
    limits = LimitSettings(hours=2, disk_gb=10)
    assert Needs(1.0, 5.0, None).beyond(limits) == []
    assert Needs(None, 12.0, 0).beyond(limits) == [
        "an unknown amount of time (limit: 2 hours)",
        "about 12 GB of disk space (limit: 10 GB)",
    ]


@pytest.mark.anyio
async def test_a_training_beyond_a_limit_is_a_question_and_starts_with_consent(
    home: Path, dataset: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKPROPAGATE_LIMITS__HOURS", "1")
    service = TrainingService(load_settings())
    monkeypatch.setattr(service.dispatch, "start", lambda run: None)
    request: dict[str, Any] = {"dataset": str(dataset), "model": str(tiny_model), "wait_s": 0}
    async with Client(build_server(service, [dataset.parent, tiny_model.parent])) as client:
        asked = await client.call_tool("train", request)
        assert asked.is_error and isinstance(asked.content[0], TextContent)
        assert "[INPUT_CONFIRMATION_NEEDED]" in asked.content[0].text
        assert "an unknown amount of time (limit: 1 hours)" in asked.content[0].text
        assert service.store.ids() == []
        started = await client.call_tool("train", {**request, "confirmed": True})
        assert not started.is_error and len(service.store.ids()) == 1
        again = await client.call_tool("train", request)
        assert not again.is_error and len(service.store.ids()) == 1
