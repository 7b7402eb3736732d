"""What `train` says of a request that was made before."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.types import TextContent

from backpropagate.server.app import build_server
from backpropagate.tools import follow
from backpropagate.training.runs.device_queue import DeviceQueue
from backpropagate.training.runs.identity import machine
from backpropagate.training.runs.locks import Lock
from backpropagate.training.service import TrainingService

pytestmark = pytest.mark.anyio


async def test_a_repeated_request_is_told_which_run_it_found_and_by_what(
    service: TrainingService, dataset: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.dispatch, "start", lambda run: None)
    request: dict[str, Any] = {"dataset": str(dataset), "model": str(tiny_model), "steps": 3, "wait_s": 0}

    async with Client(build_server(service, [dataset.parent, tiny_model.parent])) as client:

        async def said(**more: object) -> str:
            answer = await client.call_tool("train", {**request, **more})
            assert isinstance(answer.content[0], TextContent) and not answer.is_error, answer
            return answer.content[0].text

        assert "already exists" not in await said()
        (run_id,) = service.store.ids()
        by_content = await said(request_key="tickets")
        assert f"Same request (settings and dataset content) as run {run_id}" in by_content
        assert "request_key 'tickets' now names it." in by_content
        by_key = await said(request_key="tickets", new_run=True)
        assert f"Same request_key 'tickets' as run {run_id}" in by_key and "a new request_key" in by_key
        assert f"run {run_id}" in await said(request_key=None, new_run=None)
        assert service.store.ids() == [run_id]
        assert "already exists" not in await said(new_run=True, request_key="another")
        (other,) = set(service.store.ids()) - {run_id}
        assert f"as run {other}" in await said()


async def test_a_repeated_demand_for_a_new_run_is_the_same_one_until_it_is_over(
    service: TrainingService, dataset: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.dispatch, "start", lambda run: None)
    request: dict[str, Any] = {"dataset": str(dataset), "model": str(tiny_model), "steps": 3, "wait_s": 0}

    async with Client(build_server(service, [dataset.parent, tiny_model.parent])) as client:

        async def run_of(**more: object) -> tuple[str, str]:
            answer = await client.call_tool("train", {**request, **more})
            assert answer.structured_content and not answer.is_error, answer
            return answer.structured_content["run_id"], answer.structured_content.get("note", "")

        first, _ = await run_of()
        demanded, note = await run_of(new_run=True)
        assert demanded != first and not note
        again, note = await run_of(new_run=True)
        assert again == demanded and "request_key" in note and "no new run" in note
        named, _ = await run_of(new_run=True, request_key="another")
        assert named not in (first, demanded)
        await service.cancel(demanded)
        third, _ = await run_of(new_run=True)
        assert third not in (first, demanded, named)
        await service.cancel(third)
        fourth, _ = await run_of(new_run=True)
        monkeypatch.setattr(follow, "REPEATS_S", 0.0)
        assert (await run_of(new_run=True))[0] != fourth


async def test_a_resumed_run_takes_no_word_for_a_new_one(service: TrainingService) -> None:
    async with Client(build_server(service)) as client:
        refused = await client.call_tool("train", {"resume": "a7f3", "new_run": True})
    assert refused.is_error and isinstance(refused.content[0], TextContent)
    assert "resume cannot be given with new_run" in refused.content[0].text


@pytest.mark.parametrize("gate", [False, True])
async def test_a_call_waits_for_a_lock_no_longer_than_it_may_take(
    service: TrainingService, dataset: Path, tiny_model: Path, gate: bool
) -> None:
    requests = service.settings.home / "requests"
    requests.mkdir(parents=True)
    DeviceQueue(service.runtime_folder, "cpu")
    held = Lock(service.runtime_folder / machine() / "cpu-gate.lock" if gate else requests / "lock")
    request = {"dataset": str(dataset), "model": str(tiny_model), "steps": 3, "device": "cpu", "wait_s": 1.2}
    async with Client(build_server(service, [dataset.parent, tiny_model.parent])) as client:
        with held:
            refused = await client.call_tool("train", request)
    assert refused.is_error and isinstance(refused.content[0], TextContent)
    locked = rf"is locked by process {os.getpid()} \(.*\) for more than [01]\.?\d* s"
    assert re.search(locked, refused.content[0].text)
    assert not service.store.ids()
