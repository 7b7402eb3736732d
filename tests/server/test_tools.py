"""Every tool's schema as a client sees it, held against a snapshot, and what must be true of all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from finished_runs import finished_run
from mcp import Client
from mcp.types import TextContent, Tool
from waiting import small_spec

from backpropagate.cli.options import description_of
from backpropagate.server.app import build_server
from backpropagate.tools import TOOLS
from backpropagate.training.config.arguments import flat_fields
from backpropagate.training.runs.folder import Status
from backpropagate.training.service import TrainingService

pytestmark = pytest.mark.anyio
SNAPSHOTS = Path(__file__).parent / "snapshots"


async def offered(service: TrainingService) -> list[Tool]:
    async with Client(build_server(service)) as client:
        return (await client.list_tools()).tools


def test_a_server_starts_without_what_only_runs_need() -> None:
    heavy = ("torch", "numpy", "structlog", "jinja2", "datasets")
    ours = ("engine", "export", "worker.train", "data.readers.sources", "data.report")
    names = [*heavy, *(f"backpropagate.training.{name}" for name in ours)]
    program = (
        f"import sys, backpropagate.server.app; print([name for name in {names} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


async def test_every_tools_schema_equals_its_snapshot(service: TrainingService) -> None:
    """Set UPDATE_SNAPSHOTS=1 to accept a change, and read the diff."""
    for tool in await offered(service):
        shown = (
            json.dumps(tool.model_dump(mode="json", exclude_none=True), indent=1, ensure_ascii=False) + "\n"
        )
        path = SNAPSHOTS / f"{tool.name}.json"
        if os.environ.get("UPDATE_SNAPSHOTS"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(shown, encoding="utf-8")
        assert path.read_text(encoding="utf-8") == shown
    assert {path.stem for path in SNAPSHOTS.iterdir()} == {tool.name for tool in TOOLS}


async def test_every_tool_has_all_four_hints_a_description_and_described_arguments(
    service: TrainingService,
) -> None:
    for tool in await offered(service):
        hints = tool.annotations
        assert hints is not None and None not in (
            hints.read_only_hint,
            hints.destructive_hint,
            hints.idempotent_hint,
            hints.open_world_hint,
        )
        assert tool.description and len(tool.name) <= 40
        assert all("description" in argument for argument in tool.input_schema["properties"].values())


async def test_the_whole_tool_list_stays_small(service: TrainingService) -> None:
    """Hosts drop servers with large lists, and Claude Code shows three of these tools from the start."""
    tools = await offered(service)
    whole = {tool.name: len(tool.model_dump_json(exclude_none=True, by_alias=True)) for tool in tools}
    assert len(whole) <= 17 and max(whole.values()) < 5000 and sum(whole.values()) < 30_000, whole
    at_once = {tool.name for tool in tools if (tool.meta or {}).get("anthropic/alwaysLoad")}
    assert at_once == {"inspect_dataset", "train", "get_run"}


async def test_the_instructions_are_short_and_say_what_users_ask_for(service: TrainingService) -> None:
    async with Client(build_server(service)) as client:
        said = client.instructions
    assert said and len(said) <= 1500
    assert {"Fine-tune", "LoRA", "GGUF", "Ollama", "list_runs", "untrusted"} <= {
        word for word in ("Fine-tune", "LoRA", "GGUF", "Ollama", "list_runs", "untrusted") if word in said
    }
    async with Client(build_server(service, read_only=True)) as client:
        assert "This server only reads" in (client.instructions or "")


async def test_the_schema_tells_defaults_as_this_users_settings_have_them(
    service: TrainingService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKPROPAGATE_LORA__R", "8")
    (train,) = [tool for tool in await offered(TrainingService()) if tool.name == "train"]
    told = {name: argument.get("default") for name, argument in train.input_schema["properties"].items()}
    assert (told["lora_r"], told["epochs"], told["steps"]) == (8, "auto", None)
    assert told["model"] == "auto"


@pytest.mark.parametrize("given", [{"learning_rate": 0.9}, {"dataset": "/a.jsonl", "questions": ["Who?"]}])
async def test_a_run_that_goes_on_takes_no_other_settings(
    service: TrainingService, given: dict[str, object]
) -> None:
    async with Client(build_server(service)) as client:
        refused = await client.call_tool("train", {"resume": "a7f3", "steps": 9, **given})
    assert refused.is_error and isinstance(refused.content[0], TextContent)
    assert f"resume cannot be given with {', '.join(given)}" in refused.content[0].text


@pytest.mark.parametrize("name", ["train", "inspect_dataset"])
async def test_a_tools_settings_are_those_of_the_specs(service: TrainingService, name: str) -> None:
    (tool,) = [tool for tool in await offered(service) if tool.name == name]
    fields = flat_fields()
    shown = tool.input_schema["properties"]
    assert shown.keys() & fields.keys()
    for argument in shown.keys() & fields.keys():
        _, _, info = fields[argument]
        assert shown[argument]["description"] == description_of(info), argument


async def test_a_server_that_only_reads_names_no_tool_that_it_has_not(
    service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    spec = small_spec(dataset, tiny_model)
    trained = finished_run(service.store, spec, {"kind": "train", "steps": 3, "still_falling": True})
    stopped = finished_run(service.store, spec, {}, Status.CANCELLED)
    service.store.create(spec)
    async with Client(build_server(service, read_only=True)) as client:
        has = {tool.name for tool in (await client.list_tools()).tools}
        for run_id in service.store.ids():
            shown: Any = await client.call_tool("get_run", {"run_id": run_id})
            told = shown.structured_content["next"]
            absent = [tool.name for tool in TOOLS if tool.name not in has]
            assert not [name for name in absent if f"{name}(" in told or ("_" in name and name in told)], told
            if run_id == trained.run_id:
                assert f"the user can run `backprop export {run_id}`" in told
            if run_id == stopped.run_id:
                assert f"the user can run `backprop resume {run_id}`" in told
    async with Client(build_server(service)) as client:
        whole: Any = await client.call_tool("get_run", {"run_id": stopped.run_id})
        assert f'resume_run(run_id="{stopped.run_id}")' in whole.structured_content["next"]


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_an_unknown_tool_is_refused_with_the_nearest_or_with_what_there_is(
    service: TrainingService, mode: str
) -> None:
    async with Client(build_server(service), mode=mode) as client:
        misspelt = await client.call_tool("trian", {})
    async with Client(build_server(service, read_only=True), mode=mode) as client:
        writing = await client.call_tool("push_to_hub", {})
    for refused, way in ((misspelt, "Did you mean train?"), (writing, "This server only reads. It has ")):
        (content,) = refused.content
        assert refused.is_error and isinstance(content, TextContent) and way in content.text
