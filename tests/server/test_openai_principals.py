"""OpenAI's interface on a server with many users: each has files, jobs and models of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from authorization_server import AuthorizationServer, authorization_server
from facts import write_dataset
from finished_runs import finished_run
from http_server import Served, serving
from openai import OpenAI
from openai_client import openai_client
from waiting import small_spec

from backpropagate.training.runs.folder import RunFolder
from backpropagate.training.runs.store import RunStore

ROW = b'{"prompt": "1 + 1?", "completion": "2"}\n'


@pytest.fixture(scope="module")
def issuer() -> Iterator[AuthorizationServer]:
    with authorization_server() as server:
        yield server


@pytest.fixture(scope="module")
def served(
    issuer: AuthorizationServer, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    options = ["--openai", "--oauth-issuer", issuer.url, "--root", str(tiny_model)]
    with serving(folder / "data", *options, home=folder / "home") as server:
        yield server


@pytest.fixture
def users(served: Served, issuer: AuthorizationServer) -> Iterator[Callable[..., OpenAI]]:
    """The client of a user, with these scopes."""
    opened: list[Any] = []

    def of(user: str, scopes: str = "runs:read runs:write") -> OpenAI:
        opened.append(openai_client(served, issuer.token(served.url, scopes, sub=user)))
        return opened[-1].__enter__()

    yield of
    for each in opened:
        each.__exit__(None, None, None)


@pytest.fixture
def job_of_ada(served: Served, issuer: AuthorizationServer, tmp_path: Path, tiny_model: Path) -> RunFolder:
    store = RunStore(served.home, f"{issuer.url} ada")
    run = finished_run(store, small_spec(write_dataset(tmp_path / "d.jsonl"), tiny_model), {"kind": "train"})
    run.adapter_path.mkdir()
    (run.adapter_path / "adapter_config.json").write_text("{}")
    return run


def test_what_belongs_to_another_user_does_not_exist(
    users: Callable[..., OpenAI], job_of_ada: RunFolder, tiny_model: Path
) -> None:
    ada, eve = users("ada"), users("eve")
    file = ada.files.create(file=("a.jsonl", ROW), purpose="fine-tune")
    job = ada.fine_tuning.jobs.retrieve(f"ftjob-{job_of_ada.run_id}")
    assert job.fine_tuned_model in [model.id for model in ada.models.list()]
    model: str = job.fine_tuned_model or ""
    attempts: list[Callable[[], Any]] = [
        lambda: eve.files.retrieve(file.id),
        lambda: eve.files.content(file.id),
        lambda: eve.files.delete(file.id),
        lambda: eve.files.content(f"file-results-{job_of_ada.run_id}"),
        lambda: eve.fine_tuning.jobs.retrieve(job.id),
        lambda: eve.fine_tuning.jobs.list_events(job.id),
        lambda: eve.fine_tuning.jobs.checkpoints.list(job.id),
        lambda: eve.fine_tuning.jobs.list(after=job.id),
        lambda: eve.fine_tuning.jobs.cancel(job.id),
        lambda: eve.fine_tuning.jobs.pause(job.id),
        lambda: eve.fine_tuning.jobs.resume(job.id),
        lambda: eve.models.retrieve(model),
        lambda: eve.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hi"}]),
    ]
    for attempt in attempts:
        with pytest.raises(openai.NotFoundError):
            attempt()
    for named in ({"training_file": file.id}, {"training_file": file.id, "validation_file": file.id}):
        with pytest.raises(openai.BadRequestError, match="There is no file"):
            eve.fine_tuning.jobs.create(model=str(tiny_model), **named)
    assert not list(eve.files.list()) and not list(eve.fine_tuning.jobs.list())
    assert not [one.id for one in eve.models.list() if one.id.startswith("ft:")]
    assert ada.files.content(file.id).content == ROW


@pytest.mark.anyio
async def test_the_tools_read_the_callers_own_files_only(
    users: Callable[..., OpenAI], served: Served, issuer: AuthorizationServer, tiny_model: Path
) -> None:
    file = users("ada").files.create(file=("a.jsonl", ROW), purpose="fine-tune")
    (path,) = served.home.glob(f"files/*/{file.id}/data.jsonl")
    request = {"dataset": str(path), "model": str(tiny_model)}
    for user, permitted in (("eve", False), ("ada", True)):
        scopes = "runs:read runs:write"
        async with served.client(token=issuer.token(served.url, scopes, sub=user)) as client:
            found = await client.call_tool("inspect_dataset", request)
        assert ("INPUT_PATH_FORBIDDEN" not in str(found.content)) == permitted


def test_a_token_that_only_reads_changes_nothing(users: Callable[..., OpenAI], served: Served) -> None:
    reader = users("ada", "runs:read")
    assert reader.models.list().data
    for attempt in (
        lambda: reader.files.create(file=("a.jsonl", ROW), purpose="fine-tune"),
        lambda: reader.files.delete("file-x"),
        lambda: reader.fine_tuning.jobs.cancel("ftjob-x"),
    ):
        with pytest.raises(openai.PermissionDeniedError, match="needs the scope runs:write") as refused:
            attempt()
        assert refused.value.code == "insufficient_scope"
    with openai_client(served, "rubbish") as stranger, pytest.raises(openai.AuthenticationError) as unknown:
        stranger.models.list()
    assert unknown.value.code == "invalid_api_key"
