"""A push as a run: by the service, a tool, the command line and Python, with a real worker."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest
from hub_stand_in import TOKEN, Fault, HubStandIn
from mcp import Client
from mcp.types import CallToolResult, TextContent
from waiting import events_of, wait_until

from backpropagate import Trainer, TrainingRun
from backpropagate.server.app import build_server
from backpropagate.training.config.results import PushResult, TrainResult
from backpropagate.training.errors import InputError, PathForbiddenError, RunNotFoundError
from backpropagate.training.files.paths import PathPolicy
from backpropagate.training.requests.push import push_spec
from backpropagate.training.runs.folder import RunFolder, Status
from backpropagate.training.runs.store import RunStore
from backpropagate.training.runs.view import RunView
from backpropagate.training.service import TrainingService

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),  # of the library's own call
]
REPO = "me/tickets"

CopiedRun = Callable[[], RunFolder]


def text_of(result: CallToolResult) -> str:
    assert isinstance(result.content[0], TextContent)
    return result.content[0].text


def spec_of(service: TrainingService, source: str) -> object:
    return push_spec(source, REPO, service.store, PathPolicy.for_person(service.settings.home))


async def submitted(service: TrainingService, source: str) -> RunFolder:
    submission = await service.submit(spec_of(service, source))  # type: ignore[arg-type]
    return service.store.find(submission.run_id)


async def end_of(service: TrainingService, run: RunFolder) -> RunView:
    async for _ in service.watch(run.run_id):
        pass
    return await service.get(run.run_id)


async def test_a_push_is_a_run_that_shows_its_bytes_and_writes_no_token_down(
    hub: HubStandIn, service: TrainingService, copied_run: CopiedRun, home: Path
) -> None:
    run = await submitted(service, copied_run().run_id)
    view = await end_of(service, run)
    assert view.status is Status.COMPLETED, view.error
    assert isinstance(view.result, PushResult)
    assert f"{hub.endpoint}/{REPO} (private)" in view.result.summary
    assert view.result.commit == hub.repositories[REPO].head
    told = [str(getattr(event, "message", None)) for event in events_of(run)]
    assert any("uploaded adapter_model.safetensors: 0.0 of 0.0 MB" in message for message in told)
    written = [path for path in home.rglob("*") if path.is_file()]
    assert len(written) > 10
    assert not any(TOKEN.encode() in path.read_bytes() for path in written)


async def test_a_cancelled_push_leaves_the_repository_as_it_was_and_can_be_resumed(
    hub: HubStandIn, service: TrainingService, copied_run: CopiedRun
) -> None:
    release = Event()
    hub.faults = [Fault("PUT /lfs/", hold=release)]
    run = await submitted(service, copied_run().run_id)
    wait_until(hub.uploads, "the upload")
    await service.cancel(run.run_id)
    assert (await end_of(service, run)).status is Status.CANCELLED
    release.set()
    assert hub.repositories[REPO].files == {}
    await service.resume(run.run_id)
    assert (await end_of(service, run)).status is Status.COMPLETED
    assert "adapter_model.safetensors" in hub.repositories[REPO].files


async def test_the_tool_publishes_and_tells_what_to_do_when_it_may_not(
    hub: HubStandIn, service: TrainingService, copied_run: CopiedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = copied_run().run_id
    async with Client(build_server(service)) as client:
        arguments: dict[str, object] = {"run_id": run_id[-4:], "repo": REPO}
        unasked = await client.call_tool("push_to_hub", arguments)
        assert unasked.is_error and "confirmed=true" in text_of(unasked) and REPO in text_of(unasked)
        arguments["confirmed"] = True
        monkeypatch.setenv("HF_TOKEN", "")
        refused = await client.call_tool("push_to_hub", arguments)
        assert refused.is_error and "[DEP_HUB_PUSH_FAILED]" in text_of(refused)
        assert "HF_TOKEN" in text_of(refused)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        done = await client.call_tool("push_to_hub", arguments)
        assert not done.is_error and f"{hub.endpoint}/{REPO}" in text_of(done), text_of(done)
        for wrong, words in (
            ({"repo": "no-owner"}, "owner/name"),
            ({"run_id": "nonsense"}, "nonsense"),
            ({"repo": f"me/{TOKEN}"}, "secret"),
        ):
            result = await client.call_tool("push_to_hub", {**arguments, **wrong})
            assert result.is_error and words in text_of(result), text_of(result)


@pytest.mark.slow
def test_the_command_publishes_a_folder(hub: HubStandIn, trained: RunFolder, home: Path) -> None:
    command = [sys.executable, "-m", "backpropagate", "push", str(trained.adapter_path), "--repo", REPO]
    done = subprocess.run([*command, "--public", "--json"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "completed" and "run_started" in done.stderr
    assert not hub.repositories[REPO].private
    again = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert again.returncode == 2 and "is public" in again.stdout + again.stderr
    assert "--public" in again.stdout + again.stderr


def test_the_trainer_publishes_what_it_trained(hub: HubStandIn, trained: RunFolder, tiny_model: Path) -> None:
    trainer = Trainer(str(tiny_model))
    with pytest.raises(InputError, match="no adapter to publish"):
        trainer.push_to_hub(REPO)
    result = trained.state().result
    assert isinstance(result, TrainResult)
    paths = trained.adapter_path, trained.path
    last = TrainingRun(trained.run_id, Status.COMPLETED, 1, 1, [], *paths, 1.0, result)
    trainer.runs.append(last)
    assert trainer.push_to_hub(REPO) == f"{hub.endpoint}/{REPO}"
    assert "adapter_config.json" in hub.repositories[REPO].files


def test_only_what_can_be_published_is_accepted(
    service: TrainingService, copied_run: CopiedRun, tmp_path: Path, home: Path
) -> None:
    run = copied_run()
    store, paths = RunStore(home), PathPolicy.for_person(home)
    assert push_spec(run.run_id[-4:], REPO, store, paths).folder == str(run.adapter_path)
    assert push_spec(str(run.adapter_path), REPO, store, paths).run == run.run_id
    with pytest.raises(RunNotFoundError, match="nonsense"):
        push_spec("nonsense", REPO, store, paths)
    with pytest.raises(InputError, match="lacks"):
        push_spec(str(tmp_path), REPO, store, paths)
    with pytest.raises(PathForbiddenError):
        push_spec("/etc", REPO, store, paths)
