"""A GGUF export as a run: its worker killed or stopped in each stage, resumed, and called as a tool."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.types import CallToolResult, TextContent
from small_models import write_mxfp4_model, write_small_model
from tiny_lora import build_adapter, build_base, change_json
from waiting import wait_for_phase

from backpropagate.server.app import build_server
from backpropagate.training.config import quantizations
from backpropagate.training.config.results import ExportResult
from backpropagate.training.errors import GgufExportError
from backpropagate.training.export.gguf.reader import read_gguf_header
from backpropagate.training.files.paths import PathPolicy
from backpropagate.training.next_step import then
from backpropagate.training.requests.export import export_spec, note_on_quantization
from backpropagate.training.runs.folder import RunFolder, Status
from backpropagate.training.runs.view import RunView
from backpropagate.training.service import TrainingService

pytestmark = pytest.mark.anyio

CopiedRun = Callable[[], RunFolder]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "output"
    folder.mkdir()
    return folder


@pytest.fixture
def adapter(tiny_model: Path, tmp_path: Path) -> Path:
    base = build_base(tmp_path / "base", tiny_model)
    folder = build_adapter(tmp_path / "adapter", base)
    change_json(folder / "adapter_config.json", base_model_name_or_path=str(base))
    return folder


async def unstarted(
    service: TrainingService, source: str, output: Path, monkeypatch: pytest.MonkeyPatch, **arguments: Any
) -> RunFolder:
    """A run in line whose worker the test starts by itself."""
    paths = PathPolicy.for_person(service.settings.home)
    spec = export_spec(source, service.store, paths, output=str(output / "model.gguf"), **arguments)
    with monkeypatch.context() as patch:
        patch.setattr(service.dispatch, "start", lambda run: None)
        return RunFolder(service.store.runs / (await service.submit(spec)).run_id)


async def end_of(service: TrainingService, run: RunFolder) -> RunView:
    async for _ in service.watch(run.run_id):
        pass
    return await service.get(run.run_id)


DIES = """
import os, signal, sys
from backpropagate.training.runs.recorder import RunRecorder
stage = sys.argv.pop()
tell = RunRecorder.report
def report(self, event):
    tell(self, event)
    if getattr(event, "phase", None) == stage:
        os.kill(os.getpid(), signal.SIGKILL)
RunRecorder.report = report
from backpropagate.training.worker.main import main
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
@pytest.mark.parametrize("stage", ["loading", "writing", "proving"])
@pytest.mark.slow
async def test_a_worker_killed_in_any_stage_leaves_nothing_and_resuming_completes_it(
    stage: str,
    service: TrainingService,
    adapter: Path,
    output: Path,
    copied_run: CopiedRun,
    trained: RunFolder,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, arguments = str(adapter), {"quantization": "q8_0"}
    if stage == "loading":  # the trained model, to weigh the errors by what it makes of its rows
        pytest.importorskip("llama_cpp")
        shutil.copytree(trained.path.parent.parent / "cache", home / "cache")
        source, arguments = copied_run().run_id, {"quantization": "q4_k_m", "imatrix": True}
    run = await unstarted(service, source, output, monkeypatch, **arguments)
    killed = subprocess.run([sys.executable, "-c", DIES, str(run.path), stage], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert bool(list(output.iterdir())) == (stage != "loading")
    view = await service.get(run.run_id)
    assert view.status is Status.INTERRUPTED and not list(output.iterdir())
    assert view.error is not None and "no incomplete files" in (view.error.hint or "")
    await service.resume(run.run_id)
    view = await end_of(service, run)
    assert view.status is Status.COMPLETED, view.error
    assert [path.name for path in output.iterdir()] == ["model.gguf"]


HANGS = """
import sys, threading
from backpropagate.training.worker import main as worker
from backpropagate.training.export.verify import tensors
worker.GRACE_S = 0.0
tensors.map_in_order = lambda *_: threading.Event().wait()
worker.main()
"""


@pytest.mark.slow
async def test_a_worker_that_cannot_stop_is_left_and_leaves_nothing(
    service: TrainingService, adapter: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await unstarted(service, str(adapter), output, monkeypatch, quantization="q8_0")
    with subprocess.Popen([sys.executable, "-c", HANGS, str(run.path)], stderr=subprocess.DEVNULL) as worker:
        wait_for_phase(run, "proving")
        assert list(output.iterdir())
        await service.cancel(run.run_id)
        assert worker.wait() == 0
    assert (await service.get(run.run_id)).status is Status.CANCELLED and not list(output.iterdir())


def text_of(result: CallToolResult) -> str:
    assert isinstance(result.content[0], TextContent)
    return result.content[0].text


@pytest.mark.slow
async def test_the_tool_names_file_proof_and_next_step_and_writes_nowhere_else(
    service: TrainingService, copied_run: CopiedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantizations, "find_spec", lambda name: None)
    root = tmp_path / "root"
    root.mkdir()
    run_id = copied_run().run_id
    async with Client(build_server(service, [root])) as client:
        arguments = {"source": run_id[-4:]}
        outside = {**arguments, "output": str(tmp_path / "elsewhere.gguf")}
        refused = await client.call_tool("export_gguf", outside)
        assert refused.is_error and "[INPUT_PATH_FORBIDDEN]" in text_of(refused)
        done = await client.call_tool("export_gguf", {**arguments, "output": str(root)})
    said = text_of(done)
    path = next(root.glob("*.gguf"))
    assert not done.is_error and f"File: {path}" in said, said
    assert "tensors read back and compared with base + adapter" in said
    assert "Using q8_0: q4_k_m" in said and f"export of run {run_id}" in said
    label = f"tiny-llama-{run_id[-4:]}"
    assert path.name == f"{label}-q8_0.gguf"
    assert read_gguf_header(path).metadata["general.name"] == label
    assert f'register_ollama(path="{path}"' in said
    assert list(root.iterdir()) == [path] and not (tmp_path / "elsewhere.gguf").exists()


async def test_the_next_step_of_a_refusal_is_a_call_that_exists(
    service: TrainingService, tiny_model: Path, tmp_path: Path
) -> None:
    base = build_base(tmp_path / "base", tiny_model)
    change_json(base / "config.json", model_type="gpt2")
    async with Client(build_server(service, [tmp_path])) as client:
        refused = await client.call_tool("export_gguf", {"source": str(base), "quantization": "f16"})
    said = text_of(refused)
    assert refused.is_error and "`backprop export SOURCE --format merged`" in said, said
    assert "call again" not in said


@pytest.mark.parametrize("installed", [None, object()], ids=["without llama.cpp", "with llama.cpp"])
def test_a_model_with_experts_in_mxfp4_is_exported_as_q8_0_unless_something_is_named(
    installed: object | None,
    service: TrainingService,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quantizations, "find_spec", lambda name: installed)
    paths, store = PathPolicy.for_person(service.settings.home), service.store
    stored = str(write_mxfp4_model(tmp_path / "gpt-oss", tiny_model))
    usual = export_spec(str(tiny_model), store, paths)
    assert usual.quantization == ("q4_k_m" if installed else "q8_0")
    assert ("half the size" in str(note_on_quantization(usual, None, store))) == (installed is None)
    taken = export_spec(stored, store, paths)
    assert taken.quantization == "q8_0"
    told = str(note_on_quantization(taken, None, store))
    assert "keep the 4 bits" in told and "half the size" not in told
    assert note_on_quantization(taken, "q8_0", store) is None
    if installed:
        assert export_spec(stored, store, paths, quantization="q4_k_m").quantization == "q4_k_m"


async def test_a_run_whose_error_names_other_arguments_is_not_resumed_but_asked_again(
    service: TrainingService, adapter: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await unstarted(service, str(adapter), output, monkeypatch, quantization="q8_0")
    error = GgufExportError("No.", next=then("ask_again", quantization="f16"))
    service.store.fail_unstarted(run, 1, error.record())
    assert (await service.get(run.run_id)).next == then("ask_again", quantization="f16")


@pytest.mark.slow
async def test_an_equal_export_finds_the_first_one_unless_its_file_is_gone(
    service: TrainingService, adapter: Path, output: Path
) -> None:
    paths = PathPolicy.for_person(service.settings.home)
    spec = export_spec(
        str(adapter), service.store, paths, output=str(output / "model.gguf"), quantization="q8_0"
    )
    first = await service.submit(spec, find_equal=True)
    view = await end_of(service, RunFolder(service.store.runs / first.run_id))
    assert view.status is Status.COMPLETED and isinstance(view.result, ExportResult)
    assert (await service.submit(spec, find_equal=True)).run_id == first.run_id
    Path(view.result.path).unlink()
    again = await service.submit(spec, find_equal=True)
    assert again.run_id != first.run_id
    await end_of(service, RunFolder(service.store.runs / again.run_id))
    assert Path(view.result.path).is_file()


@pytest.mark.slow
async def test_a_window_that_llama_cpp_does_not_keep_to_is_told(
    service: TrainingService, tiny_model: Path, tmp_path: Path, output: Path
) -> None:
    base = write_small_model("mistral", tmp_path / "mistral", tiny_model, sliding_window=64)
    spec = export_spec(
        str(base),
        service.store,
        PathPolicy.for_person(service.settings.home),
        output=str(output / "model.gguf"),
        quantization="f16",
    )
    run = await service.submit(spec)
    view = await end_of(service, RunFolder(service.store.runs / run.run_id))
    assert view.status is Status.COMPLETED, view.error
    assert any(
        "a sliding window of 64 tokens, which llama.cpp ignores" in warning for warning in view.warnings
    )
