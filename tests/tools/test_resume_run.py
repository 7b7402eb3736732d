"""resume_run over MCP: a cancelled run continues, a live or completed one is told as it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from finished_runs import finished_run
from mcp import Client
from mcp.types import TextContent
from waiting import small_spec

from backpropagate.server.app import build_server
from backpropagate.training.config.specs import TrainSpec
from backpropagate.training.runs.folder import Status
from backpropagate.training.service import TrainingService

pytestmark = pytest.mark.anyio


async def test_a_cancelled_run_is_resumed_also_on_another_number_of_gpus_and_a_live_one_is_left_alone(
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


async def test_a_completed_run_is_refused_with_the_call_that_extends_it(
    service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    run = finished_run(service.store, small_spec(dataset, tiny_model), {"kind": "train", "steps": 3})
    async with Client(build_server(service)) as client:
        refused = await client.call_tool("resume_run", {"run_id": run.run_id})
    assert refused.is_error and isinstance(refused.content[0], TextContent)
    assert f'train(resume="{run.run_id}", steps=…)' in refused.content[0].text
