"""multi_run over MCP: how its datasets may be given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from backpropagate.server.app import build_server
from backpropagate.training.config.specs import MultiRunSpec
from backpropagate.training.service import TrainingService

pytestmark = pytest.mark.anyio


async def test_datasets_may_be_given_by_their_names(
    service: TrainingService, dataset: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.dispatch, "start", lambda run: None)
    call = {"model": str(tiny_model), "tasks": {"law": str(dataset), "tax": str(dataset)}, "wait_s": 0}
    async with Client(build_server(service, [dataset.parent, tiny_model.parent])) as client:
        begun: Any = await client.call_tool("multi_run", call)
        assert not begun.is_error, begun
        wrong: Any = await client.call_tool("multi_run", {**call, "tasks": {"law": 7}})
    spec = service.store.find(begun.structured_content["run_id"]).request_now()
    assert isinstance(spec, MultiRunSpec)
    assert [(task.name, task.dataset) for task in spec.tasks] == [
        ("law", str(dataset)),
        ("tax", str(dataset)),
    ]
    assert wrong.is_error and "tasks" in wrong.content[0].text


async def test_what_is_wrong_with_an_argument_is_said_once(service: TrainingService) -> None:
    async with Client(build_server(service)) as client:
        few: Any = await client.call_tool("generate", {"source": "a7f3", "prompts": []})
        text: Any = await client.call_tool("multi_run", {"steps_per_run": "many"})
    assert "prompts: list should have at least 1 item, not []" in few.content[0].text
    assert "steps_per_run: should be a valid integer, not 'many'" in text.content[0].text
