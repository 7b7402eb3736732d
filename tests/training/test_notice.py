"""The user is told when a run has ended: on the desktop or by a webhook, as their settings say."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from finished_runs import finished_run
from pydantic import SecretStr
from waiting import small_spec, wait_until

from backpropagate.training.config.settings import NotifySettings, load_settings
from backpropagate.training.config.specs import DataGroup, ModelGroup, TrainSpec
from backpropagate.training.errors import InvalidSettingError
from backpropagate.training.runs.folder import RunFolder, Status
from backpropagate.training.service import TrainingService
from backpropagate.training.worker.notice import notify

pytestmark = pytest.mark.anyio


class Webhook:
    """A server that keeps what it is sent, and answers as a test wants."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        self.answers: list[int] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                webhook.received.append(json.loads(self.rfile.read(length)))
                webhook.may_answer.wait()
                self.send_response(webhook.answers.pop(0) if webhook.answers else 200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook/very-secret-path"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    made = Webhook()
    yield made
    made.may_answer.set()
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def ended(service: TrainingService) -> RunFolder:
    spec = TrainSpec(model=ModelGroup(name="a/b"), data=DataGroup(source="/a.jsonl"))
    return finished_run(service.store, spec, {"steps": 3, "total_steps": 3})


def to(webhook: Webhook, after_s: float = 0) -> NotifySettings:
    return NotifySettings(webhook=SecretStr(webhook.url), after_s=after_s)


async def test_the_worker_tells_of_a_training_and_its_address_is_in_no_file(
    webhook: Webhook, home: Path, dataset: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKPROPAGATE_NOTIFY__WEBHOOK", webhook.url)
    monkeypatch.setenv("BACKPROPAGATE_NOTIFY__AFTER_S", "0")
    service = TrainingService(load_settings())
    dataset.write_text("no row of JSON")
    submitted = await service.submit(small_spec(dataset, tiny_model))
    view = await service.wait(submitted.run_id)
    wait_until(lambda: webhook.received, "the notice")
    (notice,) = webhook.received
    assert (notice["run_id"], notice["status"]) == (view.run_id, "failed")
    assert view.run_id in notice["text"] and notice["text"] == notice["content"]
    for path in Path(view.run_folder).rglob("*"):
        assert path.is_dir() or b"very-secret-path" not in path.read_bytes(), path


async def test_a_run_can_be_removed_while_the_webhook_has_not_answered(
    webhook: Webhook, home: Path, dataset: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKPROPAGATE_NOTIFY__WEBHOOK", webhook.url)
    monkeypatch.setenv("BACKPROPAGATE_NOTIFY__AFTER_S", "0")
    webhook.may_answer.clear()
    service = TrainingService(load_settings())
    dataset.write_text("no row of JSON")
    submitted = await service.submit(small_spec(dataset, tiny_model))
    wait_until(lambda: webhook.received, "the notice")
    assert await service.delete(submitted.run_id) == submitted.run_id


async def test_a_killed_worker_is_told_by_the_process_that_started_it(
    webhook: Webhook, home: Path, dataset: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKPROPAGATE_NOTIFY__WEBHOOK", webhook.url)
    monkeypatch.setenv("BACKPROPAGATE_NOTIFY__AFTER_S", "0")
    service = TrainingService(load_settings())
    submitted = await service.submit(small_spec(dataset, tiny_model, steps=100_000))
    run = service.store.find(submitted.run_id)
    wait_until(lambda: run.state().status is Status.RUNNING, "the training")
    pid = run.state().pid
    assert pid
    os.kill(pid, 9)
    wait_until(lambda: webhook.received, "the notice")
    assert [notice["status"] for notice in webhook.received] == ["interrupted"]
    assert webhook.received[0]["error_code"] == "RUNTIME_RUN_INTERRUPTED"


def test_each_attempt_is_told_once_and_short_runs_are_not(webhook: Webhook, ended: RunFolder) -> None:
    notify(ended, to(webhook, after_s=60))
    notify(ended, NotifySettings())
    assert not webhook.received
    notify(ended, to(webhook))
    notify(ended, to(webhook))
    assert len(webhook.received) == 1


@pytest.mark.parametrize(("answers", "posts"), [([500, 503, 200], 3), ([404], 1), ([302], 1)])
def test_a_webhook_that_fails_is_tried_again_and_never_an_error(
    webhook: Webhook, ended: RunFolder, answers: list[int], posts: int, capfd: pytest.CaptureFixture[str]
) -> None:
    webhook.answers = answers
    notify(ended, to(webhook))
    assert len(webhook.received) == posts
    assert "very-secret-path" not in "".join(capfd.readouterr())


def test_nobody_at_the_address_is_no_error(ended: RunFolder) -> None:
    notify(ended, NotifySettings(webhook=SecretStr("http://127.0.0.1:9/x"), after_s=0))


def test_an_address_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("BACKPROPAGATE_NOTIFY__WEBHOOK", "file:///etc/passwd")
    with pytest.raises(InvalidSettingError, match="https://") as refused:
        load_settings()
    assert "passwd" not in str(refused.value)


DESKTOP = """
import asyncio, sys
from pathlib import Path
from dbus_fast.aio import MessageBus
from dbus_fast.service import ServiceInterface, dbus_method

class Desktop(ServiceInterface):
    said = None

    @dbus_method()
    def GetCapabilities(self) -> 'as':
        return ['body']

    @dbus_method()
    def GetServerInformation(self) -> 'ssss':
        return ['test', 'test', '1', '1.2']

    @dbus_method()
    def Notify(self, app: 's', n: 'u', icon: 's', title: 's', body: 's', a: 'as', h: 'a{sv}', t: 'i') -> 'u':
        self.said = (app, title, body)
        return 1

async def main():
    bus = await MessageBus().connect()
    desktop = Desktop('org.freedesktop.Notifications')
    bus.export('/org/freedesktop/Notifications', desktop)
    await bus.request_name('org.freedesktop.Notifications')
    told = 'import sys; from pathlib import Path; ' \\
        'from backpropagate.training.config.settings import NotifySettings; ' \\
        'from backpropagate.training.runs.folder import RunFolder; ' \\
        'from backpropagate.training.worker.notice import notify; ' \\
        'notify(RunFolder(Path(sys.argv[1])), NotifySettings(desktop=True, after_s=0))'
    process = await asyncio.create_subprocess_exec(sys.executable, '-c', told, sys.argv[1])
    await process.wait()
    print(*desktop.said, sep='|')

asyncio.run(main())
"""


@pytest.mark.skipif(shutil.which("dbus-run-session") is None, reason="needs a message bus")
def test_a_desktop_shows_the_notice(ended: RunFolder, tmp_path: Path) -> None:
    program = tmp_path / "desktop.py"
    program.write_text(DESKTOP)
    command = ["dbus-run-session", "--", sys.executable, str(program), str(ended.path)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0, shown.stderr
    app, title, body = shown.stdout.strip().split("|")
    assert (app, title) == ("backpropagate", "Run completed") and ended.run_id in body


def test_a_machine_without_a_desktop_goes_on(ended: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nowhere")
    notify(ended, NotifySettings(desktop=True, after_s=0))
