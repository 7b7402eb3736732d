"""The client's roots: folders that the user works in are permitted, and relative paths begin there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from facts import write_dataset
from mcp import Client
from mcp.types import ListRootsResult, Root, TextContent

from backpropagate.server.app import build_server
from backpropagate.training.service import TrainingService

pytestmark = pytest.mark.anyio
BOTH = pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    user = tmp_path / "user"
    (user / ".config").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(user))
    monkeypatch.setenv("USERPROFILE", str(user))
    return user


async def inspected(service: TrainingService, mode: str, roots: list[str], dataset: str) -> str:
    """What inspect_dataset answers to a client with these roots."""

    async def list_roots(_context: Any) -> ListRootsResult:
        return ListRootsResult(roots=[Root(uri=root) for root in roots])

    server = build_server(service)
    async with Client(server, mode=mode, list_roots_callback=list_roots) as client:  # type: ignore[arg-type]
        said = await client.call_tool("inspect_dataset", {"dataset": dataset, "wait_s": 0})
    assert isinstance(said.content[0], TextContent)
    return said.content[0].text


@BOTH
async def test_a_dataset_in_a_root_of_the_client_is_read_also_by_a_relative_path_and_a_uri(
    service: TrainingService, user: Path, tmp_path: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.dispatch, "start", lambda run: None)
    work = tmp_path / "work place"
    work.mkdir()
    file = write_dataset(work / "facts.jsonl")
    for dataset in (str(file), "facts.jsonl", file.as_uri()):
        assert "PATH_FORBIDDEN" not in await inspected(service, mode, [work.as_uri()], dataset), dataset
    assert len(service.store.ids()) == 1  # each time the same file
    run = service.store.find(service.store.ids()[0])
    assert str(work) in (run.spec().roots or ())  # so that its worker may read it


@BOTH
async def test_a_root_that_would_open_what_is_closed_opens_nothing(
    service: TrainingService, user: Path, tmp_path: Path, mode: str
) -> None:
    closed = [tmp_path, user / ".config", Path(tmp_path.anchor), Path("/etc"), tmp_path / "missing"]
    for folder in closed:
        file = user / ".config" / "a.jsonl" if user.is_relative_to(folder) else folder / "a.jsonl"
        said = await inspected(service, mode, [folder.as_uri()], str(file))
        assert "INPUT_PATH_FORBIDDEN" in said, folder
    assert "INPUT_PATH_FORBIDDEN" in await inspected(service, mode, ["file://server/share"], "a.jsonl")


async def test_a_client_without_roots_is_told_how_to_permit_a_folder(
    service: TrainingService, user: Path, tmp_path: Path
) -> None:
    async with Client(build_server(service)) as client:
        said = await client.call_tool("inspect_dataset", {"dataset": str(tmp_path / "a.jsonl")})
    assert isinstance(said.content[0], TextContent) and "--root FOLDER" in said.content[0].text


async def test_a_permitted_folder_that_does_not_exist_is_told_and_the_server_serves(
    service: TrainingService, tmp_path: Path
) -> None:
    async with Client(build_server(service, [tmp_path / "typo"])) as client:
        assert str(tmp_path / "typo") in (client.instructions or "")
        assert not (await client.call_tool("list_runs", {})).is_error
