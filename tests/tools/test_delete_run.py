"""delete_run over MCP: what is asked before a run is removed, and what is refused without asking."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from finished_runs import finished_run
from mcp import Client
from waiting import small_spec

from backpropagate.server.app import build_server
from backpropagate.training.service import TrainingService

pytestmark = pytest.mark.anyio


async def test_a_live_run_is_refused_before_the_user_is_asked(
    service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    run = service.store.create(small_spec(dataset, tiny_model))
    async with Client(build_server(service)) as client:
        refused: Any = await client.call_tool("delete_run", {"run_id": run.run_id})
    assert refused.is_error and f'cancel_run(run_id="{run.run_id}")' in refused.content[0].text
    assert run.path.is_dir()


async def test_the_size_of_a_small_run_is_told_in_its_own_unit(
    service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    run = finished_run(service.store, small_spec(dataset, tiny_model), {"kind": "train", "steps": 3})
    async with Client(build_server(service)) as client:
        asked: Any = await client.call_tool("delete_run", {"run_id": run.run_id})
    assert asked.is_error and " kB)?" in asked.content[0].text
