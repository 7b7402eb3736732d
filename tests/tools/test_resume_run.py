"""resume_run over MCP: a cancelled run continues, a live or completed one is told as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.types import TextContent
from waiting import small_spec, wait_for_step

from backpropagate.server.app import build_server
from backpropagate.training.config.specs import TrainSpec
from backpropagate.training.runs.folder import Status
from backpropagate.training.service import TrainingService

pytestmark = pytest.mark.anyio


async def end_of(service: TrainingService, run_id: str) -> Status:
    async for _ in service.watch(run_id):
        pass
    return (await service.get(run_id)).status


@pytest.mark.slow
async def test_a_cancelled_run_is_resumed_and_a_live_one_is_left_alone(
    service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    submitted = await service.submit(small_spec(dataset, tiny_model, steps=100_000))
    wait_for_step(service.store.find(submitted.run_id), 2)
    await service.cancel(submitted.run_id)
    assert await end_of(service, submitted.run_id) is Status.CANCELLED
    async with Client(build_server(service)) as client:
        again: Any = await client.call_tool("resume_run", {"run_id": submitted.run_id, "wait_s": 0})
        assert again.structured_content["status"] in ("queued", "running"), again
        live: Any = await client.call_tool("resume_run", {"run_id": submitted.run_id, "wait_s": 0})
        assert not live.is_error and "already" in live.structured_content["note"]
    await service.cancel(submitted.run_id)
    assert await end_of(service, submitted.run_id) is Status.CANCELLED


async def test_a_run_can_be_resumed_on_another_number_of_gpus_and_with_no_other_setting(
    service: TrainingService, dataset: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = service.store.create(small_spec(dataset, tiny_model, device="cpu"))
    service.store.finish(run, run.state().model_copy(update={"status": Status.CANCELLED}))
    async with Client(build_server(service)) as client:
        for settings, said in (
            ({"gpus": 65}, "gpus: should be less than or equal to 64"),
            ({"gpus": 2, "seed": 1}, "resume cannot be given with settings"),
        ):
            refused: Any = await client.call_tool("train", {"resume": run.run_id, "settings": settings})
            assert refused.is_error and said in str(refused.content[0])
        assert run.state().attempt == 1
        monkeypatch.setattr(service.dispatch, "start", lambda run: None)
        again = {"run_id": run.run_id, "gpus": 2, "wait_s": 0}
        resumed: Any = await client.call_tool("resume_run", again)
        assert not resumed.is_error, resumed
        live: Any = await client.call_tool("resume_run", {**again, "gpus": 1})
        assert live.structured_content["note"] == "The run is already queued; gpus is not used."
    spec = run.request_now()
    assert isinstance(spec, TrainSpec) and spec.training.gpus == 2


@pytest.mark.slow
async def test_a_completed_run_is_refused_with_the_call_that_extends_it(
    service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    submitted = await service.submit(small_spec(dataset, tiny_model))
    assert await end_of(service, submitted.run_id) is Status.COMPLETED
    async with Client(build_server(service)) as client:
        refused = await client.call_tool("resume_run", {"run_id": submitted.run_id})
    assert refused.is_error and isinstance(refused.content[0], TextContent)
    assert f'train(resume="{submitted.run_id}", steps=…)' in refused.content[0].text
