"""A GGUF and an Ollama server for it; a small model that was really trained, and a Hub for it."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from facts import QUESTION, write_dataset
from hub_stand_in import TOKEN, HubStandIn
from ollama_stand_in import OllamaStandIn
from tiny_gguf import write_gguf
from tiny_lora import change_json

from backpropagate.training.files.paths import PathPolicy
from backpropagate.training.requests.export import export_spec
from backpropagate.training.runs.folder import RunFolder
from backpropagate.training.runs.recorder import RunRecorder
from backpropagate.training.runs.store import RunStore
from backpropagate.training.worker import export as export_worker
from backpropagate.training.worker.context import RunContext


@pytest.fixture(autouse=True)
def no_real_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that forgets to name a server must not find somebody's."""
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    for name in os.environ:
        if name.casefold().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "tiny.Q8_0.gguf")


@pytest.fixture
def server(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[OllamaStandIn]:
    """The newest kind of server, or the version that a test is parametrised with."""
    folder = tmp_path / "blobs"
    folder.mkdir()
    with OllamaStandIn(folder, getattr(request, "param", "0.34.1")) as stand_in:
        monkeypatch.setenv("OLLAMA_HOST", stand_in.host)
        yield stand_in


@pytest.fixture(scope="session")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A completed run of a few steps; not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BACKPROPAGATE_HOME", str(folder / "home"))
        patch.setenv("BACKPROPAGATE_RUNTIME_DIR", str(folder / "runtime"))
        from backpropagate import Trainer

        trainer = Trainer(
            str(tiny_model),
            lora_r=4,
            learning_rate=0.01,
            batch_size=4,
            threads=1,
            questions=[QUESTION],
            max_new_tokens=4,
        )
        run = trainer.train(write_dataset(folder / "secret-project.jsonl"), steps=20)
    return RunFolder(run.run_folder)


@pytest.fixture
def copied_run(trained: RunFolder, home: Path) -> Callable[[str], RunFolder]:
    """Puts a copy of the trained run into the test's own home, under a name."""

    def copy(name: str = "") -> RunFolder:
        target = home / "runs" / (name or trained.run_id)
        shutil.copytree(trained.path, target)
        return RunFolder(target)

    return copy


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubStandIn]:
    """The Hub for workers, by their environment; and for the library here, which has read its own already."""
    hub = HubStandIn()
    for name, value in {
        "HF_ENDPOINT": hub.endpoint,
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(tmp_path / "huggingface"),
    }.items():
        monkeypatch.setenv(name, value)
    constants = "huggingface_hub.constants"
    monkeypatch.setattr(f"{constants}.ENDPOINT", hub.endpoint)
    template = f"{hub.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(f"{constants}.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(f"{constants}.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(f"{constants}.HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=lambda seconds: None))
    yield hub
    hub.close()


@pytest.fixture(scope="session")
def llama_cpp() -> None:
    """Skip where llama.cpp is not installed."""
    if find_spec("llama_cpp") is None:
        pytest.skip('llama.cpp is not installed: pip install "backpropagate-mcp[export]"')


@pytest.fixture(scope="session")
def llama_cpp_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """llama.cpp's source, from the archive that LLAMA_CPP_SDIST names."""
    archive = os.environ.get("LLAMA_CPP_SDIST")
    if not archive:
        pytest.skip(
            "LLAMA_CPP_SDIST does not name llama_cpp_python-*.tar.gz (pip download --no-binary :all:)"
        )
    folder = tmp_path_factory.mktemp("llama-cpp")
    with tarfile.open(archive) as files:
        wanted = [member for member in files if _is_wanted(member.name)]
        files.extractall(folder, wanted, filter="data")
    return next(folder.glob("*/vendor/llama.cpp"))


def _is_wanted(name: str) -> bool:
    _, _, path = name.partition("/vendor/llama.cpp/")
    return path.startswith(("models/ggml-vocab-", "gguf-py/gguf/", "conversion/", "convert_hf_to_gguf.py"))


@pytest.fixture
def export(home: Path) -> Callable[..., dict[str, Any]]:
    """Carries an export out as its worker does, and returns the run's result; errors are raised.

    `stop_in` is the phase in which it is cancelled; `meanwhile` happens while it waits for its turn.
    """

    def carry(
        base: Path,
        adapter: Path | None,
        quantization: str,
        stop_in: str | None = None,
        meanwhile: Callable[[], object] = lambda: None,
        **arguments: Any,
    ) -> dict[str, Any]:
        if adapter is not None:
            change_json(adapter / "adapter_config.json", base_model_name_or_path=str(base))
        store = RunStore(home)
        spec = export_spec(
            str(adapter or base),
            store,
            PathPolicy.for_person(home),
            quantization=quantization,
            **arguments,
        )
        recorder = RunRecorder(store, store.create(spec))

        def wait_for_device() -> None:
            meanwhile()
            recorder.running("cpu")

        context = RunContext(recorder.run, recorder, lambda: recorder.phase_name == stop_in, home)
        export_worker.run(context, wait_for_device)
        state = recorder.run.state()
        return {**(state.result.model_dump() if state.result else {}), "warnings": state.warnings}

    return carry
