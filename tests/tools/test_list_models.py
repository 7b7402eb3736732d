"""list_models: what is downloaded, and what this machine can train."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from measured_gpus import with_gpus

from backpropagate.server.app import build_server
from backpropagate.training.models.presets import PRESETS
from backpropagate.training.service import TrainingService

pytestmark = pytest.mark.anyio


@pytest.fixture
def cache(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the Hub's library, with two whole models, half a model, and what is no model."""
    cache = tmp_path / "hub"
    for name in ("Qwen--Qwen3-0.6B", "me--own-model"):
        shutil.copytree(tiny_model, cache / f"models--{name}" / "snapshots" / "abc")
    half = cache / "models--me--half" / "snapshots" / "abc"
    half.mkdir(parents=True)
    (half / "config.json").write_text("{}")
    (cache / "models--").mkdir()
    (cache / "models--bad name\n--x" / "snapshots").mkdir(parents=True)
    (cache / "datasets--a--b").mkdir()
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    return cache


async def listed(service: TrainingService) -> dict[str, Any]:
    async with Client(build_server(service)) as client:
        answer = await client.call_tool("list_models", {})
    assert answer.structured_content and not answer.is_error, answer
    return answer.structured_content


async def test_downloaded_models_come_first_and_half_ones_are_not_offered(
    cache: Path, service: TrainingService
) -> None:
    models = (await listed(service))["models"]
    assert {model["model"] for model in models} == {*PRESETS, "me/own-model"}
    here = [model["model"] for model in models if "downloaded_gb" in model]
    assert here == [model["model"] for model in models[:2]] and set(here) == {"qwen3-0.6b", "me/own-model"}


async def test_without_a_cache_the_presets_remain(
    service: TrainingService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "nothing"))
    answer = await listed(service)
    assert {model["model"] for model in answer["models"]} == set(PRESETS)
    assert answer["default"] == "smollm2-135m" and "CPU" in answer["machine"]


@pytest.mark.parametrize(
    ("gib", "large", "small"),
    [(80, "yes", "yes"), (6, "with load_in_4bit=true", "yes"), (4, "too large", "yes")],
)
async def test_each_model_says_whether_it_fits_the_gpu(
    service: TrainingService, monkeypatch: pytest.MonkeyPatch, gib: int, large: str, small: str
) -> None:
    with_gpus(monkeypatch, gib)
    fit = {model["model"]: model["trains_here"] for model in (await listed(service))["models"]}
    assert (fit["qwen2.5-7b"], fit["qwen3-0.6b"]) == (large, small)
