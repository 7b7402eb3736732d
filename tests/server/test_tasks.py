"""A long call as a task: for who asked for it, durable, and with an end that stays."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from raw_server import HttpServer, RawHttp, RawServer, envelope
from task_client import TaskClient
from waiting import busy_device, kill_worker, small_spec, wait_for_step, wait_until

from backpropagate.server.app import build_server
from backpropagate.server.tasks.run_tasks import RunTasks
from backpropagate.server.tasks.task_files import TaskFiles
from backpropagate.training.runs.folder import RunFolder
from backpropagate.training.runs.store import RunStore
from backpropagate.training.service import TrainingService

Json = dict[str, Any]


def small(dataset: Path, model: Path, **more: object) -> Json:
    return {"dataset": str(dataset), "model": str(model), "steps": 3, "batch_size": 2, "lora_r": 4, **more}


def endless(dataset: Path, model: Path) -> Json:
    return small(dataset, model, steps=100_000)


def until(condition: Callable[[Json], bool], server: RawServer | RawHttp, task: Json) -> Json:
    """The task, as soon as the condition holds."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        got = server.ask("tasks/get", {"taskId": task["taskId"]})["result"]
        if condition(got):
            return got
        time.sleep(0.1)
    raise AssertionError(got)


def ended(got: Json) -> bool:
    return got["status"] != "working"


def cancel(server: RawServer, task: Json) -> Json:
    answer = server.ask("tasks/cancel", {"taskId": task["taskId"]})["result"]
    return {name: value for name, value in answer.items() if name != "_meta"}


def run_of(task: Json) -> str:
    """The first words of the message are the run's id."""
    return task["statusMessage"].partition(":")[0]


def wait_for_pid(run: RunFolder) -> None:
    wait_until(lambda: run.state().pid is not None, "a worker")


def test_a_task_comes_at_once_survives_the_servers_death_and_is_cancelled_with_its_adapter(
    home: Path, dataset: Path, tiny_model: Path
) -> None:
    with RawServer(tiny_model, dataset.parent) as server:
        announced = server.ask("server/discover")["result"]["capabilities"]["extensions"]
        assert "io.modelcontextprotocol/tasks" in announced
        task = server.call("train", endless(dataset, tiny_model))
        assert (task["resultType"], task["status"]) == ("task", "working")
        assert task["ttlMs"] > 0 and "result" not in task
        run = RunStore(home).find(run_of(task))
        assert run.run_id == run_of(task)
        server.kill()
    if os.name != "nt":
        assert stat.S_IMODE((home / "tasks").stat().st_mode) == 0o700
    wait_for_step(run, 2)
    with RawServer() as server:
        got = until(lambda got: "step" in got["statusMessage"], server, task)
        assert got["status"] == "working" and got["taskId"] == task["taskId"]
        assert "loss" in got["statusMessage"] and got["createdAt"] == task["createdAt"]
        for _ in range(2):
            assert (
                server.ask("tasks/cancel", {"taskId": task["taskId"]})["result"]["resultType"] == "complete"
            )
        got = until(ended, server, task)
        assert got["status"] == "cancelled" and "result" not in got and "error" not in got
        assert str(run.adapter_path) in got["statusMessage"] and "resume_run(" in got["statusMessage"]
        assert cancel(server, task) == {"resultType": "complete"}


@pytest.mark.slow
def test_the_end_of_a_task_is_what_the_tool_itself_would_have_answered(
    home: Path, dataset: Path, tiny_model: Path
) -> None:
    with RawServer(tiny_model, dataset.parent) as server:
        request = small(dataset, tiny_model, questions=["What is the value of zorvex?"])
        task = server.call("train", request)
        got = until(ended, server, task)
        assert got["status"] == "completed" and got["statusMessage"].startswith(run_of(task))
        plain = server.call("train", request)  # the run has ended: there is nothing to wait for
        assert plain["resultType"] == "complete"
        same = {**plain["structuredContent"]}
        assert "no new run was started" in same.pop("note")
        assert got["result"]["structuredContent"] == same
        assert got["result"]["content"][0]["text"].endswith(
            plain["content"][0]["text"].rpartition("Next:")[2]
        )


@pytest.mark.slow
def test_a_run_that_fails_is_a_completed_task_with_the_tools_error(
    home: Path, dataset: Path, tiny_model: Path
) -> None:
    dataset.write_text('{"oops":\n')
    with RawServer(tiny_model, dataset.parent) as server:
        task = server.call("train", small(dataset, tiny_model))
        got = until(ended, server, task)
        assert got["status"] == "completed" and got["result"]["isError"]
        text = got["result"]["content"][0]["text"]
        assert text.startswith("[") and f"Run {run_of(task)} failed" in text and ":1" in text
        assert got["statusMessage"].startswith(run_of(task))


@pytest.mark.slow
def test_a_task_keeps_its_end_when_the_run_is_resumed(home: Path, dataset: Path, tiny_model: Path) -> None:
    with RawServer(tiny_model, dataset.parent) as server:
        task = server.call("train", endless(dataset, tiny_model))
        run = RunStore(home).find(run_of(task))
        wait_for_step(run, 1)
        unasked = server.call("train", endless(dataset, tiny_model))  # a second task of the same run
        assert run_of(unasked) == run.run_id and unasked["taskId"] != task["taskId"]
        server.ask("tasks/cancel", {"taskId": task["taskId"]})
        cancelled = until(ended, server, task)
        resumed = server.call("resume_run", {"run_id": run.run_id})
        assert resumed["resultType"] == "task" and run_of(resumed) == run.run_id
        assert until(ended, server, task) == cancelled
        late = until(ended, server, unasked)  # asked for the first time after the resume
        assert late["status"] == "cancelled" and "attempt 2" in late["statusMessage"]
        # Neither of the old tasks can stop the new attempt.
        server.ask("tasks/cancel", {"taskId": unasked["taskId"]})
        assert not run.cancel_requested()
        wait_for_pid(run)
        kill_worker(run)
        died = until(ended, server, resumed)
        assert died["status"] == "completed" and died["result"]["isError"]
        assert "RUNTIME_RUN_INTERRUPTED" in died["result"]["content"][0]["text"]


def test_nothing_but_a_started_run_makes_a_task(home: Path, dataset: Path, tiny_model: Path) -> None:
    device = busy_device(Path(os.environ["BACKPROPAGATE_RUNTIME_DIR"]))
    with RawServer(tiny_model, dataset.parent) as server:
        for arguments in ({"datset": "x"}, {"dataset": "/nowhere.jsonl"}, {"dataset": 5}):
            refused = server.call("train", arguments)
            assert refused["resultType"] == "complete" and refused["isError"]
        assert server.call("list_runs", {})["resultType"] == "complete"
        undeclared = server.call("train", small(dataset, tiny_model, wait_s=0), envelope())
        assert undeclared["resultType"] == "complete"
        assert undeclared["structuredContent"]["status"] == "queued"
        server.call("cancel_run", {"run_id": undeclared["structuredContent"]["run_id"]})
    device.release()
    assert not (home / "tasks").exists()


def test_an_id_that_is_not_the_askers_task_is_unknown(home: Path) -> None:
    (home / "tasks").mkdir(parents=True)
    (home / "x.json").write_text("{}")
    with RawServer() as server:
        for task_id in ("../x", "../tasks/x", "/etc/passwd", "a" * 32, "", "a" * 5000, "x\u0000y"):
            for method in ("tasks/get", "tasks/cancel", "tasks/update"):
                refused = server.ask(method, {"taskId": task_id})["error"]
                assert (refused["code"], refused["message"]) == (-32602, "There is no such task.")
        undeclared = server.ask("tasks/get", {"taskId": "a" * 32}, envelope())["error"]
        assert undeclared["code"] == -32021


@pytest.mark.anyio
async def test_tasks_are_of_their_principal_and_end_with_their_run_or_their_time(
    service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    device = busy_device(service.runtime_folder)
    submitted = await service.submit(small_spec(dataset, tiny_model))
    run = service.store.find(submitted.run_id)
    files = TaskFiles(service.settings.home / "tasks")
    made = files.create(await service.get(run.run_id), "train", "alice", None)
    old = files.create(await service.get(run.run_id), "train", "alice", None)
    tasks = RunTasks(service)
    for principal, known in (("alice", True), ("bob", False), (None, True)):  # the owner sees all
        assert (await tasks.find(made.task_id, principal) is not None) is known
    wait_for_pid(run)
    kill_worker(run)
    device.release()
    run.path.rename(service.settings.home / "elsewhere")
    gone = await tasks.find(made.task_id, "alice")
    assert gone and gone.status == "failed" and "No run matches" in gone.outcome["error"]["message"]
    os.utime(service.settings.home / "tasks" / f"{old.task_id}.json", (0, 0))
    assert await tasks.find(old.task_id, "alice") is None


@pytest.mark.anyio
@pytest.mark.slow
async def test_the_official_python_client_gets_the_end_of_a_task_as_the_result_of_its_call(
    service: TrainingService, dataset: Path, tiny_model: Path
) -> None:
    tasks = TaskClient()
    roots = [dataset.parent, tiny_model]
    async with Client(build_server(service, roots), mode="2026-07-28", extensions=[tasks]) as client:
        trained = await client.call_tool("train", small(dataset, tiny_model))
        assert not trained.is_error and trained.structured_content
        assert trained.structured_content["status"] == "completed"
        run_id = trained.structured_content["run_id"]
        assert len(tasks.told) > 2 and all(message.startswith(f"{run_id}: ") for message in tasks.told)
        refused = await client.call_tool("train", {"dataset": "/nowhere.jsonl"})
        assert refused.is_error


@pytest.mark.nightly
@pytest.mark.slow
def test_every_kind_of_long_call_is_a_task_over_http_too(home: Path, dataset: Path, tiny_model: Path) -> None:
    with HttpServer(tiny_model, dataset.parent) as server:
        task = server.call("train", small(dataset, tiny_model))
        assert task["resultType"] == "task"
        other = server.ask("tasks/get", {"taskId": task["taskId"]}, headers={"mcp-name": "another"})
        assert other["error"]["code"] == -32020
        anyone = RawHttp(server.url, token=None)
        assert anyone.ask("tasks/get", {"taskId": task["taskId"]})["error"] == "invalid_token"
        anyone.close()
    with HttpServer(tiny_model, dataset.parent) as server:  # another process of the same home
        run_id = run_of(until(ended, server, task))
        data = {"dataset": str(dataset), "model": str(tiny_model)}
        for tool, arguments in (
            ("export_gguf", {"source": run_id, "quantization": "f16"}),
            ("evaluate", {"source": run_id}),
            ("multi_run", {**data, "num_runs": 1, "steps_per_run": 2}),
        ):
            got = until(ended, server, server.call(tool, arguments))
            assert got["status"] == "completed" and not got["result"]["isError"], got
            assert got["result"]["structuredContent"]["run_id"] == run_of(got)
