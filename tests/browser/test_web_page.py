"""The web page as a person has it: in Chromium, in light and dark, on a desk and on a phone.

Needs Chromium and Node, and `npm install --ignore-scripts` in this folder. With SCREENSHOTS=FOLDER it leaves
a picture of every page there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from finished_runs import finished_run
from moving_run import MovingRun
from waiting import small_spec, steps_of
from web_browser import MISSING, Browser
from web_page import Page, serving_page

from backpropagate.training.config.specs import InspectSpec, MultiRunSpec
from backpropagate.training.runs.folder import Status

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(MISSING, reason="needs Chromium, Node, and npm install in tests/browser"),
]
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"
VERDICT: dict[str, Any] = {
    "verdict": "better", "sentence": "Better: the loss on 20 held-out rows fell from 4.2 to 0.9.", "rows": 20,
    "held_out": 20, "loss_before": 4.2, "loss_after": 0.9, "low": -4.0, "high": -3.0, "level": 0.95,
}  # fmt: skip
ANSWER = {
    "question": f"What is zorvex? {HOSTILE}",
    "before": HOSTILE,
    "after": "violet",
    "expected": "violet",
}
RESULT: dict[str, Any] = {
    "steps": 60, "total_steps": 60, "first_loss": 4.0, "final_loss": 0.52, "eval_loss": 0.9,
    "eval_loss_before": 4.2, "engine": "packed", "engine_reason": "a test", "verdict": VERDICT,
    "answers": [ANSWER],
}  # fmt: skip
LEDGER: dict[str, Any] = {
    "merge_mode": "slao",
    "tasks": [
        {"name": f"task {n}", "rows": 9, "scored_on": "held_out", "scored_rows": 3, "base_score": -4.5}
        for n in (1, 2)
    ],
    "runs": [
        {"run": 1, "steps": 5, "learning_rate": 1e-4, "scale": 1.0, "scores": [-2.25]},
        {"run": 2, "steps": 5, "learning_rate": 1e-4, "scale": 0.7, "scores": [-2.5, -1.125]},
    ],
}
INSPECTED: dict[str, Any] = {
    "rows": 9, "usable": 7, "held_out": 0, "formats": {"openai": 7}, "turns": {"user assistant": 7},
    "tokens": {"median": 80, "max": 120, "trained_share": 0.4},
    "findings": [
        {"severity": "error", "kind": "parse", "count": 2, "first": ["a:4"], "repair": 'on_bad_rows="skip"'},
        {"severity": "note", "kind": "duplicate", "count": 1, "first": ["a:2"], "repair": 'dedupe="exact"'},
    ],
    "preview": {"note": "untrusted", "rows": [{
        "place": "rows.jsonl:1", "tokens": 5, "trained_tokens": 2, "untrusted_text": HOSTILE,
        "untrusted_tokens": [["<|im_start|>", False], ["user\n", False], [HOSTILE, False], ["Hello", True]],
    }]},
}  # fmt: skip


@pytest.fixture
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with serving_page(roots=(tmp_path_factory.getbasetemp(),)) as served:
        yield served


@pytest.fixture
def browser(page: Page) -> Iterator[Browser]:
    started = Browser(page.url)
    yield started
    started.close()


def shot(browser: Browser, name: str) -> None:
    if folder := os.environ.get("SCREENSHOTS"):
        browser.do("screenshot", path=f"{folder}/{name}.png")


def test_a_training_is_started_and_each_step_is_on_the_page_within_a_second(
    page: Page, browser: Browser, dataset: Path, tiny_model: Path
) -> None:
    browser.open("/train")
    for name, text in {
        "dataset": dataset, "model": tiny_model, "steps": 300, "batch_size": 2, "questions": "What is zorvex?"
    }.items():  # fmt: skip
        browser.do("fill", selector=f"#{name}", text=str(text))
    browser.do("click", selector="main form .primary")
    browser.wait_for("location.pathname.startsWith('/runs/') && typeof follow === 'function'")
    look = "const step = curve.steps.at(-1); if (step !== undefined) seen[step] ??= Date.now()"
    browser.run(f"window.seen = {{}}; setInterval(() => {{ {look} }}, 10); 0")
    browser.wait_for("/completed|failed/.test(document.querySelector('#status').textContent)")
    seen = {int(step): at / 1000 for step, at in browser.run("seen").items()}
    run_id = browser.do("url").rpartition("/")[2]
    written = {
        step.step: datetime.fromisoformat(step.t).timestamp()
        for step in steps_of(page.service.store.find(run_id))
    }
    late = [seen[step] - written[step] for step in seen]
    assert len(seen) >= 3 and max(seen) == 300 and max(late) < 1, late
    assert "Better" in browser.text("#verdict") or "tell" in browser.text("#verdict")
    assert browser.run("document.querySelectorAll('.answer .sides dt').length") == 2
    assert not browser.do("errors")
    shot(browser, "ended")


@pytest.fixture
def addresses(page: Page, dataset: Path, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Every page, each with something on it; texts in them are hostile."""
    store, model = page.service.store, tmp_path / "tiny-llama"
    spec = small_spec(dataset, model)
    moving = MovingRun(page.service, dataset, model)
    moving.evaluate(0, 4.2)
    for step in range(1, 41):
        moving.step(step, 4 / step**0.5, tokens_per_s=312.0, eta_s=95.0)
    moving.evaluate(40, 0.9)
    multi = MultiRunSpec.model_validate(spec.model_dump(exclude={"kind", "job"}))
    inspect = InspectSpec.model_validate({"model": {"name": "a/b"}, "data": {"source": "rows.jsonl"}})
    broken = finished_run(store, spec, RESULT, Status.INTERRUPTED)
    page.outputs.mkdir(parents=True, exist_ok=True)
    (page.outputs / "rows.jsonl").write_text("{}")
    yield {
        "runs": "/runs",
        "running": f"/runs/{moving.run_id}",
        "completed": f"/runs/{finished_run(store, spec, RESULT).run_id}",
        "interrupted": f"/runs/{broken.run_id}",
        "ledger": f"/runs/{finished_run(store, multi, RESULT | {'num_runs': 2, 'ledger': LEDGER}).run_id}",
        "report": f"/dataset?run={finished_run(store, inspect, INSPECTED).run_id}",
        **{
            name: f"/{name}" for name in ("train", "multi-run", "dataset", "ask", "export", "models", "login")
        },
        "missing": "/runs/none",
    }
    moving.end()


@pytest.mark.parametrize(
    ("scheme", "width"), [("light", 1200), ("dark", 1200), ("light", 340), ("dark", 340)]
)
def test_every_page_is_accessible_fits_and_runs_no_text_as_script(
    page: Page, browser: Browser, addresses: dict[str, str], scheme: str, width: int
) -> None:
    for name, path in addresses.items():
        page.calm_down()
        browser.open(path, width=width, colorScheme=scheme)
        if name == "running":
            browser.wait_for("document.querySelector('#chart path.training')")
        browser.run("document.querySelectorAll('details').forEach((part) => (part.open = true))")
        assert browser.do("violations") == [], name
        assert browser.fits(), name
        errors = [error for error in browser.do("errors") if "404" not in error]
        assert not errors, (name, errors)
        shot(browser, f"{name}-{scheme}-{width}")


def test_it_can_be_used_by_keyboard_alone(page: Page, browser: Browser, addresses: dict[str, str]) -> None:
    browser.open(addresses["running"])
    browser.do("press", selector="body", key="Tab")
    assert browser.run("document.activeElement.textContent") == "Skip to the content"
    browser.do("press", selector=":focus", key="Enter")
    assert browser.run("document.activeElement.id") == "main"
    browser.wait_for("document.querySelector('#chart path.training')")
    browser.do("press", selector="#chart", key="End")
    assert browser.text("#readout").startswith("step 40: training 0.6325")
    browser.goto("/dataset")
    browser.do("press", selector="button[data-into]", key="Enter")
    assert browser.run("document.activeElement.value") == "rows.jsonl"


def test_a_page_that_was_cut_off_goes_on_where_it_was(
    page: Page, browser: Browser, dataset: Path, tmp_path: Path
) -> None:
    moving = MovingRun(page.service, dataset, tmp_path / "model")
    moving.step(1, 3.0)
    browser.open(f"/runs/{moving.run_id}")
    browser.wait_for("curve.steps.at(-1) === 1")
    browser.run("source.close(); document.title = 'not loaded again'; 0")
    moving.step(2, 2.0)
    moving.step(3, 1.5)
    browser.run("follow(); 0")
    browser.wait_for("curve.steps.join() === '1,2,3'")
    assert browser.run("document.querySelectorAll('#events li').length") == 4
    moving.end()
    browser.wait_for("document.querySelector('#status').textContent.includes('cancelled')")
    assert browser.run("!document.querySelector('[data-can=resume]').hidden && source.readyState === 2")


def test_a_day_of_events_stays_small(page: Page, browser: Browser, dataset: Path, tmp_path: Path) -> None:
    moving = MovingRun(page.service, dataset, tmp_path / "model")
    moving.step(1, 3.0)
    browser.open(f"/runs/{moving.run_id}")
    browser.wait_for("curve.steps.at(-1) === 1")
    # One step a second, told in pieces; the server's answer would replace the points, so it is not asked.
    day = """
      readAgain = () => { curve = { ...curve, steps: [], losses: [] }; };
      for (let first = 2; first < 86400; first += 20) {
        const steps = Array.from({ length: 20 }, (_, index) => first + index);
        const log = steps.map((step) => [step, `step ${step} of a long day, with some words`]);
        const points = { steps, losses: steps.map((step) => 1 / step), eval_steps: [], eval_losses: [] };
        const told = { ...points, log, seq: first, status: "running", step: first, total_steps: 90000 };
        onMetrics({ data: JSON.stringify(told) });
      }
      0
    """
    browser.run(f"(() => {{ {day} }})()")
    assert browser.do("heapMb") < 100
    assert browser.run("document.querySelectorAll('#events li').length") == 200
    assert browser.run("curve.steps.length") <= 2420 and not browser.do("errors")
    moving.end()


def test_it_can_be_read_without_scripts(browser: Browser, addresses: dict[str, str]) -> None:
    browser.open(addresses["completed"], javaScriptEnabled=False)
    shot(browser, "without-scripts")
    browser.open(addresses["completed"])
    assert json.dumps(browser.do("errors")) == "[]"
