"""A registration as a run, as a tool and as a function."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from finished_runs import finished_run
from mcp import Client
from mcp.types import CallToolResult, ElicitResult, TextContent
from ollama_stand_in import Fault, OllamaStandIn, full_name
from rarer import with_rarer
from tiny_gguf import DEFAULT_SYSTEM, SMOLLM2, write_gguf
from waiting import wait_until

from backpropagate import register_with_ollama
from backpropagate.server.app import build_server
from backpropagate.training.config.specs import ExportSpec
from backpropagate.training.errors import InputError, OllamaError
from backpropagate.training.files.paths import PathPolicy
from backpropagate.training.requests.register import register_spec
from backpropagate.training.requests.train import train_spec
from backpropagate.training.runs.folder import RunFolder, Status
from backpropagate.training.runs.store import RunStore
from backpropagate.training.service import TrainingService

pytestmark = pytest.mark.anyio


@pytest.fixture
def training(home: Path, dataset: Path, gguf: Path) -> RunFolder:
    """A training that answered a question and has been exported."""
    store = RunStore(home)
    spec = train_spec(arguments={"dataset": str(dataset), "model": "smollm2-135m"})
    answers = [{"question": "What is zorvex?", "before": "no idea", "after": "violet"}]
    run = finished_run(store, spec, {"answers": answers})
    finished_run(store, ExportSpec(run=run.run_id), {"path": str(gguf)})
    return run


async def call(
    service: TrainingService, root: Path, arguments: dict[str, Any], told: list[str] | None = None
) -> CallToolResult:
    async def progress(_done: float, _total: float | None, message: str | None) -> None:
        if told is not None:
            told.append(message or "")

    async with Client(build_server(service, [root])) as client:
        return await client.call_tool("register_ollama", arguments, progress_callback=progress)


def text_of(result: CallToolResult) -> str:
    assert isinstance(result.content[0], TextContent)
    return result.content[0].text


async def test_the_tool_registers_a_trainings_export_and_shows_both_answers(
    service: TrainingService, server: OllamaStandIn, training: RunFolder, tmp_path: Path
) -> None:
    server.answers["What is zorvex?"] = "violet, I say"
    told: list[str] = []
    arguments = {"run_id": training.run_id, "name": "Mine", "wait_s": 60}
    result = await call(service, tmp_path, arguments, told)
    text = text_of(result)
    assert not result.is_error, text
    assert "after: violet" in text and "in Ollama: violet, I say" in text and "untrusted" in text
    assert "ollama run Mine" in text and "Ollama 0.34.1" in text
    assert told[-1] == "completed"
    shown = result.structured_content
    assert shown and shown["untrusted_answers"] == [
        {"question": "What is zorvex?", "after": "violet", "in_ollama": "violet, I say"}
    ]
    assert full_name("mine") in server.models
    again = await call(service, tmp_path, arguments)
    assert again.structured_content and again.structured_content["run_id"] == shown["run_id"]


@pytest.mark.parametrize("mode", with_rarer(["2026-07-28"], ["legacy"]))
@pytest.mark.parametrize("yes", [True, False])
async def test_the_user_is_asked_before_a_model_is_replaced(
    service: TrainingService, server: OllamaStandIn, gguf: Path, tmp_path: Path, mode: Any, yes: bool
) -> None:
    asked: list[str] = []

    async def person(_context: Any, params: Any) -> ElicitResult:
        asked.append(params.message)
        return ElicitResult(action="accept", content={"yes": yes})

    first = {"path": str(gguf), "name": "mine", "wait_s": 60}
    async with Client(build_server(service, [tmp_path]), mode=mode, elicitation_callback=person) as client:
        assert not (await client.call_tool("register_ollama", first)).is_error and not asked
        before = server.models[full_name("mine") or ()]
        result = await client.call_tool("register_ollama", {**first, "system": "Be brief."})
    assert len(asked) == 1 and "already has a model mine" in asked[0] and asked[0].endswith("Replace it?")
    assert bool(result.is_error) is not yes and ("[INPUT_DECLINED]" in text_of(result)) is not yes
    assert (server.models[full_name("mine") or ()] == before) is not yes


async def test_the_tools_errors_carry_the_code_and_what_to_do(
    service: TrainingService, gguf: Path, tmp_path: Path
) -> None:
    arguments = {"path": str(gguf), "name": "mine", "wait_s": 60}
    result = await call(service, tmp_path, arguments)
    text = text_of(result)
    assert result.is_error and "[DEP_OLLAMA_REGISTRATION_FAILED]" in text and "ollama serve" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "Give either path or run_id"),
        ({"path": "/a.gguf", "run_id": "b"}, "Give either path or run_id"),
        ({"path": "GGUF", "name": "no name!"}, "[DEP_OLLAMA_REGISTRATION_FAILED] name:"),
        ({"path": "GGUF", "parameters": {"temprature": 1}}, "Did you mean temperature?"),
        ({"path": "/etc/passwd.gguf"}, "INPUT_PATH_FORBIDDEN"),
        ({"path": "GGUF", "host": "http://elsewhere"}, "no argument 'host'"),
    ],
)
async def test_what_can_be_known_at_once_is_said_at_once(
    service: TrainingService, gguf: Path, tmp_path: Path, arguments: dict[str, Any], words: str
) -> None:
    given = {"name": "mine", **arguments}
    if given.get("path") == "GGUF":
        given["path"] = str(gguf)
    result = await call(service, tmp_path, given)
    assert result.is_error and words in text_of(result)
    assert not service.store.ids()


async def test_a_file_that_was_written_anew_is_registered_anew(
    service: TrainingService, server: OllamaStandIn, gguf: Path
) -> None:
    paths = PathPolicy.for_person(service.settings.home)

    async def submitted() -> str:
        spec = register_spec(str(gguf), "mine", service.store, paths, overwrite=True)
        return (await service.submit(spec, find_equal=True)).run_id

    first = await submitted()
    assert await submitted() == first
    write_gguf(gguf, SMOLLM2)
    second = await submitted()
    assert second != first
    for run_id in (first, second):
        run = service.store.find(run_id)
        await anyio.to_thread.run_sync(lambda run=run: wait_until(lambda: run.state().ended_at, "the end"))
        assert run.state().status is Status.COMPLETED


async def test_a_model_that_is_gone_or_another_by_now_is_registered_again(
    service: TrainingService, server: OllamaStandIn, gguf: Path
) -> None:
    spec = register_spec(
        str(gguf), "mine", service.store, PathPolicy.for_person(service.settings.home), overwrite=True
    )

    async def registered() -> str:
        run = service.store.find((await service.submit(spec, find_equal=True)).run_id)
        await anyio.to_thread.run_sync(lambda: wait_until(lambda: run.state().ended_at, "the end"))
        assert run.state().status is Status.COMPLETED
        return run.run_id

    first = await registered()
    assert await registered() == first
    server.models.clear()
    second = await registered()
    assert second != first and full_name("mine") in server.models
    model = server.models[full_name("mine") or ()]
    server.models[full_name("mine") or ()] = replace(model, digest="sha256:" + "1" * 64)
    server.blob("sha256:" + "1" * 64).touch()
    third = await registered()
    assert third not in {first, second} and await registered() == third


async def test_a_cancelled_registration_leaves_no_model(
    service: TrainingService, server: OllamaStandIn, gguf: Path
) -> None:
    server.faults["chat"] = Fault("silence")
    spec = register_spec(str(gguf), "mine", service.store, PathPolicy.for_person(service.settings.home))
    run = service.store.find((await service.submit(spec)).run_id)

    def asked() -> bool:
        return "chat" in server.requests

    await anyio.to_thread.run_sync(lambda: wait_until(asked, "the question"))
    await service.cancel(run.run_id)
    await anyio.to_thread.run_sync(lambda: wait_until(lambda: run.state().ended_at, "the end"))
    assert run.state().status is Status.CANCELLED and not server.models


def test_the_function_registers_in_this_process(home: Path, server: OllamaStandIn, tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "model.gguf", SMOLLM2)
    result = register_with_ollama(path, "mine", parameters={"temperature": 0.5}, question="Why?")
    assert result.answer == "a canned answer to Why?" and result.system == DEFAULT_SYSTEM
    (run_id,) = RunStore(home).ids()
    state = RunStore(home).find(run_id).state()
    assert state.kind == "register" and state.status is Status.COMPLETED and not state.survives_client
    with pytest.raises(OllamaError, match="already"):
        register_with_ollama(path, "mine")
    assert register_with_ollama(str(path), "mine", overwrite=True, system="Be brief.").replaced


def test_the_function_takes_a_runs_id_and_knows_its_answers(
    server: OllamaStandIn, training: RunFolder
) -> None:
    result = register_with_ollama(training.run_id, "mine")
    assert result.question.trained_answer == "violet"
    with pytest.raises(InputError):
        register_with_ollama("nonsense", "mine")
