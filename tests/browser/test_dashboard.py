"""The dashboard as a person sees it: in Chromium, behind the official bridge of hosts.

Needs Chromium and Node, and `npm install --ignore-scripts` in this folder.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from moving_run import MovingRun
from waiting import wait_until

from backpropagate.training.config.results import read_result
from backpropagate.training.runs.folder import Status
from backpropagate.training.service import TrainingService

HERE = Path(__file__).parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NODE = shutil.which("node")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and NODE), reason="needs Chromium and Node"),
    pytest.mark.skipif(not (HERE / "node_modules").is_dir(), reason="needs npm install in tests/browser"),
]
ABLE = {"serverTools": {}, "serverResources": {}, "updateModelContext": {"text": {}}}


class Host:
    """A stand-in client with a browser; see host.mjs."""

    def __init__(self) -> None:
        command = [NODE or "", str(HERE / "host.mjs"), CHROMIUM or ""]
        server = [sys.executable, "-P", "-m", "backpropagate", "serve", "--root", "/"]
        self.process = subprocess.Popen(
            [*command, *server],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=HERE,
            env=dict(os.environ),
        )
        assert self._answer() == "ready"

    def _answer(self) -> Any:
        assert self.process.stdout
        answer = json.loads(self.process.stdout.readline())
        assert "error" not in answer, answer
        return answer["result"]

    def do(self, command: str, **given: Any) -> Any:
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"command": command, **given}) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def open(self, run_id: str, theme: str = "light", width: int = 760, **more: Any) -> App:
        told = {"tool": "get_run", "arguments": {"run_id": run_id}, "capabilities": ABLE, **more}
        return App(self, self.do("open", theme=theme, width=width, **told))


class App:
    """One frame with the dashboard."""

    def __init__(self, host: Host, index: int) -> None:
        self.host, self.index = host, index

    def text(self, selector: str = "main") -> str:
        text = self.run(f"document.querySelector({json.dumps(selector)}).innerText")
        return " ".join(text.split())

    def run(self, expression: str) -> Any:
        return self.host.do("inFrame", app=self.index, expression=expression)

    def click(self, selector: str) -> None:
        self.host.do("click", app=self.index, selector=selector)

    def press(self, selector: str, key: str) -> None:
        self.host.do("press", app=self.index, selector=selector, key=key)

    def page(self, expression: str) -> Any:
        return self.host.do("inPage", expression=expression.replace("APP", f"apps[{self.index}]"))

    def until(self, condition: Callable[[], object], what: str) -> None:
        wait_until(condition, what)


@pytest.fixture
def host() -> Iterator[Host]:
    started = Host()
    yield started
    started.process.communicate(timeout=30)
    assert started.process.returncode == 0


@pytest.fixture
def moving(service: TrainingService, dataset: Path, tiny_model: Path) -> MovingRun:
    run = MovingRun(service, dataset, tiny_model)
    run.evaluate(0, 4.2)
    for step in range(1, 41):
        run.step(step, 4 / step**0.5, tokens_per_s=312.0, eta_s=95.0)
    return run


RESULT: dict[str, Any] = {
    "kind": "train", "steps": 60, "total_steps": 100, "first_loss": 4.0, "final_loss": 0.52,
    "eval_loss": 0.9, "eval_loss_before": 4.2, "engine": "packed", "engine_reason": "a test",
    "verdict": {
        "verdict": "better", "sentence": "Better: the loss on 20 held-out rows fell from 4.2 to 0.9.",
        "rows": 20, "held_out": 20, "loss_before": 4.2, "loss_after": 0.9, "low": -4.0, "high": -3.0,
        "level": 0.95,
    },
    "answers": [
        {"question": "What is zorvex?", "before": "<b>no</b> idea", "after": "ANSWER[zorvex] = violet"}
    ],
}  # fmt: skip


def test_a_run_is_shown_live_and_its_end_is_told_once(host: Host, moving: MovingRun) -> None:
    apps = [host.open(moving.run_id), host.open(moving.run_id, "dark"), host.open(moving.run_id, width=320)]
    for app in apps:
        app.until(lambda: "step 40 of 100" in app.text(), "the steps")  # noqa: B023
        app.until(lambda: app.run("document.querySelector('path.training') !== null"), "the curve")  # noqa: B023
    first = apps[0]
    said = first.text()
    for part in ("▶ running", "about 1m 35s left", "4 → 0.6325", "312 tokens/s", "held-out loss"):
        assert part in said, said
    for step in range(41, 61):
        moving.step(step, 4 / step**0.5)
    first.until(lambda: "step 60 of 100" in first.text(), "new steps")
    assert first.run("document.querySelectorAll('.held-out-point').length") == 2  # in the key, and one point
    moving.end(Status.COMPLETED, read_result("train", RESULT))
    for app in apps:
        app.until(lambda: "✓ completed" in app.text(), "the end")  # noqa: B023
        app.until(lambda: "Better: the loss on 20" in app.text("#verdict"), "the verdict")  # noqa: B023
        assert "<b>no</b> idea" in app.text("#answers") and "violet" in app.text("#answers")
        assert app.run("document.querySelector('#stop').hidden")
        assert app.run("document.documentElement.scrollWidth <= window.innerWidth")
    told = first.page("APP.told")
    assert len(told) == 1 and f"Run {moving.run_id} has ended: completed." in told[0]
    asked = len(first.page("APP.asked"))
    assert first.page("APP.asked")[-1] == f"run://{moving.run_id}"
    if folder := os.environ.get("SCREENSHOTS"):
        host.do("screenshot", path=f"{folder}/ended.png")
    assert len(first.page("APP.asked")) == asked, "nothing more is asked after the end"
    assert not host.do("errors")


def test_a_stop_takes_two_steps_by_keyboard_too(host: Host, moving: MovingRun) -> None:
    app = host.open(moving.run_id)
    app.until(lambda: not app.run("document.querySelector('#stop').hidden"), "the button")
    app.press("#ask-stop", "Enter")
    assert app.run("document.activeElement.id") == "keep-running"
    if folder := os.environ.get("SCREENSHOTS"):
        host.do("screenshot", path=f"{folder}/running.png")
    app.press("#keep-running", "Escape")
    assert app.run("document.activeElement.id") == "ask-stop" and not moving.run.cancel_requested()
    app.click("#ask-stop")
    app.click("#stop-now")
    wait_until(moving.run.cancel_requested, "the request to stop")
    moving.end()
    app.until(lambda: "■ cancelled" in app.text(), "the end")
    calls = [asked for asked in app.page("APP.asked") if asked.startswith("cancel_run")]
    assert calls == [f'cancel_run {{"run_id":"{moving.run_id}","wait_s":5}}']


def test_the_curve_can_be_read_by_keyboard(host: Host, moving: MovingRun) -> None:
    app = host.open(moving.run_id)
    app.until(lambda: app.run("document.querySelector('path.training') !== null"), "the curve")
    # A frame that was just made does not take the focus yet.
    app.until(lambda: app.run("(byId('chart').focus(), document.hasFocus())"), "the focus")
    app.press("#chart", "End")
    assert app.text("#readout") == "step 40: training 0.6325"
    app.press("#chart", "ArrowLeft")
    assert app.text("#readout").startswith("step 39:")
    app.press("#chart", "Home")
    assert app.text("#readout") == "step 0: held-out 4.2"
    moving.end()


def test_what_is_not_seen_is_not_looked_at(host: Host, moving: MovingRun) -> None:
    app = host.open(moving.run_id)
    app.until(lambda: "step 40 of 100" in app.text(), "the steps")
    app.page("APP.frame.style.marginTop = '5000px'")
    app.until(lambda: not app.run("inView"), "the frame to leave the view")
    asked = len(app.page("APP.asked"))
    moving.step(41, 0.1)
    app.run("new Promise((resolve) => setTimeout(resolve, 5000))")
    assert len(app.page("APP.asked")) <= asked + 1
    app.page("APP.frame.style.marginTop = '0'")
    app.until(lambda: "step 41 of 100" in app.text(), "the news")
    app.page(f"closeApp({app.index})")
    moving.end()


def test_a_host_without_resources_is_asked_by_the_tool_and_one_without_anything_shows_the_result(
    host: Host, moving: MovingRun
) -> None:
    by_tool = host.open(moving.run_id, capabilities={"serverTools": {}})
    alone = host.open(moving.run_id, capabilities={})
    for step in (41, 42):
        moving.step(step, 0.1)
    by_tool.until(lambda: "step 42 of 100" in by_tool.text(), "the steps")
    assert all(asked.startswith("get_run") for asked in by_tool.page("APP.asked"))
    assert "step 40 of 100" in alone.text() and not alone.page("APP.asked")
    assert alone.run("document.querySelector('#stop').hidden")
    moving.end()


def test_a_run_is_shown_while_the_call_that_names_it_still_waits(host: Host, moving: MovingRun) -> None:
    app = host.open(moving.run_id[-4:], toolResult=None)
    app.until(lambda: "step 40 of 100" in app.text(), "the steps")
    assert moving.run_id in app.text()
    starting = host.open("", arguments={"dataset": "a.jsonl"}, toolResult=None)
    assert "The run is being started" in starting.text()
    moving.end()


def test_errors_and_results_without_fields_are_told(host: Host, moving: MovingRun) -> None:
    refused = {"isError": True, "content": [{"type": "text", "text": "[INPUT_X] Not so."}]}
    assert "[INPUT_X] Not so." in host.open("", toolResult=refused).text()
    gone = {"content": [{"type": "text", "text": "Run 20260101T000000.000Z-gone-aaaa: running."}]}
    lost = host.open("", toolResult=gone)
    lost.until(lambda: "This run is not there any more." in lost.text(), "the error")
    text_only = {"content": [{"type": "text", "text": f"Run {moving.run_id}: running.\nNext: wait"}]}
    app = host.open("", toolResult=text_only)
    app.until(lambda: "step 40 of 100" in app.text(), "the steps")
    moving.end()
