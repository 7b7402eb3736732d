"""A call returns before its client gives it up, whoever the client is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from generated_parts import assert_up_to_date
from mcp import Client
from mcp.types import Implementation

from backpropagate.server import patience
from backpropagate.server.app import build_server
from backpropagate.training.config.specs import DataGroup, ModelGroup, TrainSpec
from backpropagate.training.runs.recorder import RunRecorder
from backpropagate.training.service import TrainingService

SOON, NEVER = 0.3, 3600.0


@pytest.fixture
def run_id(service: TrainingService) -> Iterator[str]:
    """A run whose worker lives, and says nothing."""
    run = service.store.create(TrainSpec(model=ModelGroup(name="a/b"), data=DataGroup(source="/a.jsonl")))
    lock = run.lock()
    assert lock.try_acquire()
    recorder = RunRecorder(service.store, run)
    recorder.begin()
    recorder.running("cpu")
    yield run.run_id
    lock.release()


async def seen(_done: float, _total: float | None, _message: str | None) -> None:
    pass


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
@pytest.mark.parametrize(
    ("name", "asked", "progress", "soon"),
    [
        ("unknown", None, None, "WITHOUT_PROGRESS_S"),
        ("unknown", None, seen, "USUAL_S"),
        ("unknown", SOON, None, None),
        ("Patient IDE", None, None, "USUAL_S"),
        ("Patient IDE", SOON, None, None),
        ("hasty-host", None, seen, "hasty"),
        ("hasty-host", NEVER, seen, "hasty"),
    ],
)
async def test_a_call_ends_before_its_client_gives_up(
    service: TrainingService,
    run_id: str,
    monkeypatch: pytest.MonkeyPatch,
    mode: Any,
    name: str,
    asked: float | None,
    progress: Any,
    soon: str | None,
) -> None:
    """All waits but the right one are an hour."""
    for wait in ("USUAL_S", "WITHOUT_PROGRESS_S"):
        monkeypatch.setattr(patience, wait, SOON if wait == soon else NEVER)
    longest = {"hasty": SOON if soon == "hasty" else NEVER, "patient": NEVER}
    monkeypatch.setattr(patience, "LONGEST_S", longest)
    arguments: dict[str, Any] = {"run_id": run_id} | ({"wait_s": asked} if asked else {})
    client_info = Implementation(name=name, version="1")
    async with Client(build_server(service), mode=mode, client_info=client_info) as client:
        answer = await client.call_tool("resume_run", arguments, progress_callback=progress)
    assert answer.structured_content and answer.structured_content["status"] == "running", answer


def test_the_table_of_clients_is_that_of_the_page() -> None:
    """Set UPDATE_SNAPSHOTS=1 to write it anew."""
    rows = [f"| a name with `{part}` | {seconds:g} |" for part, seconds in patience.LONGEST_S.items()]
    table = ["| client | longest wait in seconds |", "|---|---|", *rows]
    assert_up_to_date(Path(__file__).parents[2] / "docs" / "long-runs.md", {"patience": table})
