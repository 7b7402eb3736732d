"""Two people at one server: each has runs of its own, and those of the other do not exist."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from authorization_server import AuthorizationServer, authorization_server
from facts import write_dataset
from http_server import Served, serving
from mcp import Client, MCPError
from mcp.types import (
    CallToolResult,
    EmptyResult,
    ResourceTemplateReference,
    SubscribeRequest,
    SubscribeRequestParams,
)
from raw_server import RawHttp
from waiting import busy_device, wait_until

from backpropagate.tools import TOOLS
from backpropagate.training.runs.folder import ENDED
from backpropagate.training.runs.store import RunStore

pytestmark = pytest.mark.anyio

ALL = "runs:read runs:write admin"
DATA = "DATASET"
"""Stands for the path of the dataset below, as RUN does for a run id and FOLDER for its folder."""

DOORS: list[tuple[str, dict[str, Any]]] = [
    ("get_run", {"run_id": "RUN"}),
    ("get_run", {"run_id": "RUN", "wait_s": 1}),
    ("get_log", {"run_id": "RUN"}),
    ("cancel_run", {"run_id": "RUN"}),
    ("delete_run", {"run_id": "RUN"}),
    ("delete_run", {"run_id": "RUN", "confirmed": True}),
    ("resume_run", {"run_id": "RUN"}),
    ("train", {"resume": "RUN"}),
    ("train", {"resume": "RUN", "steps": 99}),
    ("multi_run", {"continue_from": "RUN", "dataset": DATA}),
    ("multi_run", {"continue_from": "FOLDER/adapter", "dataset": DATA}),
    ("export_gguf", {"source": "RUN"}),
    ("export_gguf", {"source": "FOLDER/adapter"}),
    ("generate", {"source": "RUN", "prompts": ["hello"]}),
    ("generate", {"source": "FOLDER/adapter", "prompts": ["hello"]}),
    ("evaluate", {"source": "RUN"}),
    ("evaluate", {"source": "FOLDER/adapter", "dataset": DATA}),
    ("register_ollama", {"name": "x", "run_id": "RUN"}),
    ("register_ollama", {"name": "x", "path": "FOLDER/model.gguf"}),
    ("push_to_hub", {"run_id": "RUN", "repo": "a/b"}),
    ("push_to_hub", {"run_id": "FOLDER/adapter", "repo": "a/b"}),
    ("inspect_dataset", {"dataset": "FOLDER/events.jsonl"}),
    ("inspect_dataset", {"dataset": "FOLDER/../*/events.jsonl"}),
    ("train", {"dataset": "FOLDER/events.jsonl"}),
    ("plan_train", {"dataset": "FOLDER/events.jsonl"}),
    ("plan_train", {"dataset": DATA, "model": "FOLDER/adapter"}),
    ("train", {"dataset": DATA, "model": "FOLDER/adapter"}),
]
WITHOUT_RUNS = {"gpu_status", "list_models", "list_runs"}


@pytest.fixture(scope="module")
def issuer() -> Iterator[AuthorizationServer]:
    with authorization_server() as server:
        yield server


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "facts.jsonl")


@pytest.fixture(scope="module")
def served(issuer: AuthorizationServer, data: Path, tiny_model: Path) -> Iterator[Served]:
    home = data.parent / "home"
    roots = ["--root", str(tiny_model)]
    with serving(data.parent, "--oauth-issuer", issuer.url, *roots, home=home) as server:
        yield server


def token(issuer: AuthorizationServer, served: Served, user: str) -> str:
    return issuer.token(served.url, ALL, sub=user)


async def trained(client: Client, data: Path, model: Path, **more: Any) -> str:
    request = {"dataset": str(data), "model": str(model), "steps": 2, "batch_size": 2, **more}
    result = await client.call_tool("train", request)
    assert result.structured_content, result.content
    return result.structured_content["run_id"]


def filled(value: Any, run_id: str, folder: Path, data: Path) -> Any:
    if not isinstance(value, str):
        return value
    return value.replace("RUN", run_id).replace("FOLDER", str(folder)).replace(DATA, str(data))


def text(result: CallToolResult) -> str:
    return str(result.content) + str(result.structured_content)


async def knows_no_resource(client: Client, run_id: str) -> None:
    for part in ("", "/metrics", "/log", "/events", "/plot.png", "/card"):
        with pytest.raises(MCPError, match="No run matches"):
            await client.read_resource(f"run://{run_id}{part}")
    assert run_id not in str(await client.list_resources())
    template = ResourceTemplateReference(type="ref/resource", uri="run://{run_id}")
    begun = {"name": "run_id", "value": run_id[:8]}
    assert run_id not in str(await client.complete(template, begun))
    if client.protocol_version < "2026":
        with pytest.raises(MCPError, match="No run matches"):
            await client.session.send_request(
                SubscribeRequest(params=SubscribeRequestParams(uri=f"run://{run_id}")), EmptyResult
            )
    else:
        async with client.listen(resource_subscriptions=[f"run://{run_id}"]) as changes:
            assert not changes.honored.resource_subscriptions


async def test_the_runs_of_another_principal_are_unknown_at_every_door(
    served: Served, issuer: AuthorizationServer, data: Path, tiny_model: Path
) -> None:
    """Each tool that takes a run, by its id and by a path into its folder, from a client of either era."""
    assert {tool.name for tool in TOOLS} - WITHOUT_RUNS <= {name for name, _ in DOORS}
    async with (
        served.client("2026-07-28", token(issuer, served, "ada")) as ada,
        served.client("legacy", token(issuer, served, "eve")) as eve,
    ):
        run_id = await trained(ada, data, tiny_model)
        folder = served.home / "runs" / run_id
        for name, arguments in DOORS:
            asked = {key: filled(value, run_id, folder, data) for key, value in arguments.items()}
            refused = await eve.call_tool(name, asked)
            said = text(refused)
            assert refused.is_error, (name, asked, said)
            assert "[INPUT_RUN_NOT_FOUND]" in said or "[INPUT_PATH_FORBIDDEN]" in said, (name, asked, said)
        await knows_no_resource(eve, run_id)
        async with served.client("2026-07-28", token(issuer, served, "eve")) as modern_eve:
            await knows_no_resource(modern_eve, run_id)
        assert run_id in str(await ada.list_resources())
        assert run_id in str(await ada.read_resource(f"run://{run_id}"))
        assert run_id not in text(await eve.call_tool("list_runs", {}))
        assert run_id in text(await ada.call_tool("list_runs", {}))
        # Her own are known by a part of the id and by a path, and only to her.
        assert run_id in text(await ada.call_tool("get_run", {"run_id": run_id[-6:]}))
        hers = {"dataset": str(folder / "events.jsonl"), "model": str(tiny_model)}
        inside = await ada.call_tool("inspect_dataset", hers)
        assert not inside.is_error, inside


async def test_an_equal_request_or_key_of_another_finds_nothing(
    served: Served, issuer: AuthorizationServer, data: Path, tiny_model: Path
) -> None:
    async with (
        served.client(token=token(issuer, served, "bea")) as bea,
        served.client(token=token(issuer, served, "eve")) as eve,
    ):
        device = busy_device(Path(f"{served.home}-runtime"))  # none of them has to begin
        request = {"steps": 10_000, "wait_s": 0}
        first = await trained(bea, data, tiny_model, request_key="mine", **request)
        assert await trained(bea, data, tiny_model, request_key="mine", **request) == first
        assert await trained(bea, data, tiny_model, **request) == first
        theirs = await trained(eve, data, tiny_model, request_key="mine", **request)
        assert theirs != first
        assert await trained(eve, data, tiny_model, **request) == theirs
        await bea.call_tool("cancel_run", {"run_id": first, "wait_s": 0})
        await eve.call_tool("cancel_run", {"run_id": theirs, "wait_s": 0})
        device.release()
    # The owner of the home sees both, and whose they are.
    store = RunStore(served.home)
    assert {first, theirs} <= set(store.ids())
    assert store.find(first).state().principal == f"{issuer.url} bea"


@pytest.mark.slow
async def test_the_task_of_another_principal_is_unknown(
    served: Served, issuer: AuthorizationServer, data: Path, tiny_model: Path
) -> None:
    cleo, eve = (RawHttp(served.url, token(issuer, served, user)) for user in ("cleo", "eve"))
    request = {"dataset": str(data), "model": str(tiny_model), "steps": 10_000, "batch_size": 2, "seed": 7}
    task = cleo.call("train", request)
    named = {"taskId": task["taskId"]}
    for method in ("tasks/get", "tasks/update", "tasks/cancel"):
        assert eve.ask(method, named)["error"]["code"] == -32602
    assert cleo.ask("tasks/get", named)["result"]["status"] == "working"
    cleo.ask("tasks/cancel", named)
    run_id = task["statusMessage"].partition(":")[0]
    assert run_id in served.audit()
    run = RunStore(served.home).find(run_id)
    wait_until(lambda: run.state().status in ENDED, "the end of the run")
    assert cleo.ask("tasks/get", named)["result"]["status"] == "cancelled"
    cleo.close()
    eve.close()
