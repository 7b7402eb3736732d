"""The server as a client meets it: a process at the other end of a pipe."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest
from facts import write_dataset
from mcp import Client, StdioServerParameters, stdio_client
from mcp.types import CallToolResult, TextContent
from waiting import busy_device, kill_worker, wait_for_phase, wait_for_step, wait_until

from backpropagate.training.runs.device_queue import DeviceQueue
from backpropagate.training.runs.folder import RunFolder
from backpropagate.training.runs.kinds import SHORT_PLACES
from backpropagate.training.runs.store import RunStore

pytestmark = pytest.mark.anyio


@dataclass
class Progress:
    """What a client's progress callback is told, with the time since the call."""

    started: float = field(default_factory=time.monotonic)
    seen: list[tuple[float, float, float | None, str]] = field(default_factory=list)

    async def __call__(self, progress: float, total: float | None, message: str | None) -> None:
        self.seen.append((time.monotonic() - self.started, progress, total, message or ""))


def parameters(root: Path, cwd: Path | None = None) -> StdioServerParameters:
    return StdioServerParameters(
        command=sys.executable,
        args=["-P", "-m", "backpropagate", "serve", "--root", str(root)],
        env=dict(os.environ),
        cwd=str(cwd or root),
    )


@asynccontextmanager
async def connected(root: Path, cwd: Path | None = None) -> AsyncIterator[Client]:
    async with Client(stdio_client(parameters(root, cwd))) as client:
        yield client


def text_of(result: CallToolResult) -> str:
    assert isinstance(result.content[0], TextContent)
    return result.content[0].text


def run_of(home: Path, result: CallToolResult) -> RunFolder:
    assert result.structured_content
    return RunStore(home).find(result.structured_content["run_id"])


def small(dataset: Path, model: Path, **more: object) -> dict[str, object]:
    settings = {"lora": {"r": 4}, "training": {"threads": 1}}
    return {
        "dataset": str(dataset),
        "model": str(model),
        "steps": 3,
        "batch_size": 2,
        "settings": settings,
        **more,
    }


@dataclass(frozen=True)
class Trained:
    """What a client was told of a training, and the folder in which its server was started."""

    progress: Progress
    result: CallToolResult
    folder: Path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Trained:
    """A training of a server whose folder has files that Python, or an earlier version, would read."""
    folder = tmp_path_factory.mktemp("traps")
    trap = "import pathlib; pathlib.Path(__file__).with_suffix('.ran').touch()\n"
    for name in ("torch.py", "mcp.py", "anyio.py", "typing.py", "sitecustomize.py"):
        (folder / name).write_text(trap)
    (folder / ".env").write_text("BACKPROPAGATE_TRAINING__STEPS=1\nBACKPROPAGATE_PYTHON=/bin/false\n")
    progress = Progress()

    async def train() -> CallToolResult:
        async with connected(Path("/"), cwd=folder) as client:
            request = small(write_dataset(folder / "facts.jsonl"), tiny_model, steps=300, wait_s=600)
            progress.started = time.monotonic()
            return await client.call_tool("train", request, progress_callback=progress)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BACKPROPAGATE_HOME", str(folder / "home"))
        patch.setenv("BACKPROPAGATE_RUNTIME_DIR", str(folder / "runtime"))
        return Trained(progress, anyio.run(train), folder)


def test_progress_comes_at_once_rises_strictly_and_ends_at_the_total(trained: Trained) -> None:
    seen, result = trained.progress.seen, trained.result
    assert not result.is_error, text_of(result)
    assert result.structured_content and result.structured_content["status"] == "completed"
    values = [value for _, value, _, _ in seen]
    assert seen[0][0] < 2.0
    assert all(later > earlier for earlier, later in itertools.pairwise(values))
    assert values[0] < 1 and seen[-1][1:3] == (300, 300)
    assert len(seen) <= 2 * seen[-1][0] + 3
    assert any("loss" in message and "tokens/s" in message for *_, message in seen)
    assert "Next:" in text_of(result) and result.structured_content["run_id"] in text_of(result)


def test_nothing_beside_the_users_data_is_executed_or_read(trained: Trained) -> None:
    assert not trained.result.is_error, text_of(trained.result)
    assert trained.result.structured_content and trained.result.structured_content["total_steps"] == 300
    assert list(trained.folder.glob("*.ran")) == []


async def test_a_call_returns_within_wait_s_get_run_goes_on_and_cancel_run_keeps_what_was_learnt(
    home: Path, dataset: Path, tiny_model: Path
) -> None:
    device = busy_device(Path(os.environ["BACKPROPAGATE_RUNTIME_DIR"]))
    async with connected(Path("/")) as client:
        request = small(dataset, tiny_model, steps=100_000)
        result = await client.call_tool("train", {**request, "wait_s": 0.5})
        assert result.structured_content and result.structured_content["status"] == "queued"
        run_id = result.structured_content["run_id"]
        assert f'get_run(run_id="{run_id}"' in text_of(result)
        again = await client.call_tool("train", {**request, "wait_s": 0.1})
        assert again.structured_content and again.structured_content["run_id"] == run_id
        assert "no new run was started" in text_of(again)
        listed = await client.call_tool("list_runs", {"status": "queued"})
        assert run_id in text_of(listed)
        device.release()
        async with anyio.create_task_group() as calls:
            calls.start_soon(follow_to_the_end, client, run_id)
            await anyio.to_thread.run_sync(wait_for_step, run_of(home, result), 3)
            stopped = await client.call_tool("cancel_run", {"run_id": run_id})
        assert stopped.structured_content and stopped.structured_content["status"] == "cancelled"
        assert 3 <= stopped.structured_content["step"] < 100_000
        assert Path(stopped.structured_content["adapter_path"], "adapter_model.safetensors").is_file()
        again = await client.call_tool("cancel_run", {"run_id": run_id})
        assert "had already ended" in text_of(again)


async def follow_to_the_end(client: Client, run_id: str) -> None:
    """By a part of the id, in as many calls as it takes."""
    while True:
        found = await client.call_tool("get_run", {"run_id": run_id[-4:], "wait_s": 60})
        assert found.structured_content
        if found.structured_content["status"] not in {"queued", "running"}:
            assert found.structured_content["status"] == "cancelled"
            return


@pytest.mark.parametrize("end", ["client gone mid-call", "call cancelled", "SIGTERM", "SIGKILL"])
@pytest.mark.slow
async def test_the_end_of_client_server_or_call_leaves_the_run_alone(
    end: str, home: Path, dataset: Path, tiny_model: Path
) -> None:
    """An inspection stands for all kinds: it is in line as a training is, and ends sooner."""
    places = [DeviceQueue(Path(os.environ["BACKPROPAGATE_RUNTIME_DIR"]), "short") for _ in SHORT_PLACES]
    for queue, place in zip(places, SHORT_PLACES, strict=True):
        assert queue.take_unless_busy([place])
    store, request = RunStore(home), {"dataset": str(dataset), "model": str(tiny_model)}
    with anyio.move_on_after(120) as scope:
        try:
            async with connected(Path("/")) as client, anyio.create_task_group() as calls:
                calls.start_soon(client.call_tool, "inspect_dataset", request)
                await anyio.to_thread.run_sync(lambda: wait_until(store.ids, "the run's folder"))
                run = store.find(store.ids()[0])
                await anyio.to_thread.run_sync(wait_for_phase, run, "waiting")
                if end == "call cancelled":
                    calls.cancel_scope.cancel()
                elif end == "client gone mid-call":
                    scope.cancel()
                else:
                    os.kill(_server_pid(), getattr(signal, end))
        except BaseExceptionGroup:  # the client's view of a dead server
            pass
    assert len(store.ids()) == 1
    run = store.find(store.ids()[0])
    async with connected(Path("/")) as client:
        listed = await client.call_tool("list_runs", {})
        assert f"{run.run_id}: queued" in text_of(listed)
        for queue in places:
            queue.release()
        result = await client.call_tool("get_run", {"run_id": run.run_id, "wait_s": 60})
        while result.structured_content and result.structured_content["status"] in {"queued", "running"}:
            result = await client.call_tool("get_run", {"run_id": run.run_id, "wait_s": 60})
        assert result.structured_content and result.structured_content["status"] == "completed"


def _server_pid() -> int:
    """The one child of this process that serves."""
    import psutil

    serving = [child for child in psutil.Process().children() if "serve" in child.cmdline()]
    assert len(serving) == 1
    return serving[0].pid


async def test_a_run_that_is_killed_is_an_error_of_the_call_that_waits_for_it(
    home: Path, dataset: Path, tiny_model: Path
) -> None:
    store = RunStore(home)
    async with connected(Path("/")) as client, anyio.create_task_group() as calls:

        async def call() -> None:
            result = await client.call_tool("train", small(dataset, tiny_model, steps=100_000))
            assert result.is_error and "[RUNTIME_RUN_INTERRUPTED]" in text_of(result)

        calls.start_soon(call)
        await anyio.to_thread.run_sync(lambda: wait_until(store.ids, "the run's folder"))
        run = store.find(store.ids()[0])
        await anyio.to_thread.run_sync(wait_for_step, run, 1)
        kill_worker(run)


async def test_bad_input_names_code_place_expectation_and_next_step(
    home: Path, dataset: Path, tiny_model: Path, tmp_path: Path
) -> None:
    good = small(dataset, tiny_model)
    malformed = tmp_path / "malformed.jsonl"
    malformed.write_text('{"text": "a"}\n{"text": "b"}\n{"text": \n')
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    table: list[tuple[dict[str, object], str, str]] = [
        ({"stepz": 3}, "INPUT_VALIDATION_FAILED", "Did you mean steps?"),
        ({"steps": 0}, "INPUT_VALIDATION_FAILED", "steps: should be greater than or equal to 1, not 0"),
        ({"batch_size": -1}, "INPUT_VALIDATION_FAILED", "batch_size"),
        ({"settings": {"lora": {"rnk": 4}}}, "INPUT_VALIDATION_FAILED", "settings.lora"),
        ({"dataset": str(tmp_path / "none.jsonl")}, "INPUT_DATASET_NOT_FOUND", "none.jsonl"),
        ({"dataset": str(empty)}, "INPUT_DATASET_INVALID", "is empty"),
        ({"dataset": str(malformed)}, "INPUT_DATASET_PARSE_FAILED", "malformed.jsonl:3"),
        ({"dataset": "facts.jsonl"}, "INPUT_PATH_FORBIDDEN", "absolute path"),
        ({"dataset": "/etc/hosts"}, "INPUT_PATH_FORBIDDEN", "--root"),
        ({"output": "/somewhere/else"}, "INPUT_PATH_FORBIDDEN", "output"),
        ({"model": "qwen2.5-7x"}, "INPUT_VALIDATION_FAILED", "Did you mean qwen2.5-7b?"),
        ({"model": str(tmp_path / "no-model")}, "INPUT_VALIDATION_FAILED", "does not exist"),
        ({"questions": ["hf_" + "a" * 30]}, "INPUT_VALIDATION_FAILED", "secret"),
    ]
    async with connected(tmp_path.parent) as client:
        for arguments, code, words in table:
            result = await client.call_tool("train", {**good, **arguments})
            assert result.is_error, arguments
            assert text_of(result).startswith(f"[{code}]") and " — " in text_of(result), text_of(result)
            assert words in text_of(result), text_of(result)
        missing = await client.call_tool("get_run", {"run_id": "nonsense"})
        assert missing.is_error and text_of(missing).startswith("[INPUT_RUN_NOT_FOUND]")
    runs = [RunStore(home).find(run_id) for run_id in RunStore(home).ids()]
    assert len(runs) == 1, "only the file with a bad line had to be read in a run"


@pytest.mark.slow
async def test_inspect_dataset_does_not_wait_behind_a_training_and_a_second_look_starts_nothing(
    home: Path, tiny_model: Path, tmp_path: Path
) -> None:
    data = tmp_path / "mixed.jsonl"
    data.write_text(
        '{"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]}\n'
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "<|im_end|>"}]}\n'
        '{"oops":\n'
    )
    device = busy_device(Path(os.environ["BACKPROPAGATE_RUNTIME_DIR"]))
    arguments = {"dataset": str(data), "model": str(tiny_model), "preview": 2}
    async with connected(tmp_path.parent) as client:
        looked = await client.call_tool("inspect_dataset", arguments)
        assert not looked.is_error and looked.structured_content, text_of(looked)
        report = looked.structured_content
        assert (report["rows"], report["usable"]) == (3, 2)
        assert report["formats"] == {"sharegpt": 1, "openai": 1}
        repairs = {found["kind"]: found["repair"] for found in report["findings"]}
        assert repairs["parse"] == 'on_bad_rows="skip"' and repairs["control_tokens"]
        assert "mixed.jsonl:3" in text_of(looked) and "untrusted" in str(report.keys())
        again = await client.call_tool("inspect_dataset", arguments)
        assert again.structured_content and again.structured_content["run_id"] == report["run_id"]
        hidden = await client.call_tool("list_runs", {})
        assert "No runs." in text_of(hidden)
        refused = await client.call_tool("train", small(data, tiny_model))
        assert refused.is_error and 'on_bad_rows="skip"' in text_of(refused)
        device.release()
        repaired = await client.call_tool(
            "train", small(data, tiny_model, on_bad_rows="skip", control_tokens="remove")
        )
        assert not repaired.is_error, text_of(repaired)
        assert "Dropped: 1 row that cannot be parsed" in text_of(repaired)
        assert "2 of 3 rows used" in text_of(repaired)


async def test_a_wrong_setting_is_told_by_every_tool(
    home: Path, dataset: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKPROPAGATE_LORA__RANK", "8")
    async with connected(Path("/")) as client:
        assert len((await client.list_tools()).tools) >= 7
        result = await client.call_tool("train", small(dataset, tiny_model))
        assert result.is_error and "[CONFIG_INVALID_SETTING] 'BACKPROPAGATE_LORA__RANK'" in text_of(result)
        assert "Did you mean BACKPROPAGATE_LORA__R?" in text_of(result)


async def test_gpu_status_says_what_there_is(home: Path, tmp_path: Path) -> None:
    async with connected(tmp_path) as client:
        result = await client.call_tool("gpu_status", {})
        assert not result.is_error
        assert "CPU:" in text_of(result)


async def test_the_server_imports_nothing_heavy(home: Path, tmp_path: Path) -> None:
    async with connected(tmp_path) as client:
        await client.list_tools()
        loaded = Path(f"/proc/{_server_pid()}/maps")
        if sys.platform == "linux":
            assert "libtorch" not in loaded.read_text()
