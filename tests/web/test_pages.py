"""What a person sees and does on the pages, as a browser without scripts has it."""

from __future__ import annotations

import json
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from finished_runs import finished_run
from moving_run import MovingRun
from waiting import small_spec, wait_until
from web_page import Page

from backpropagate.training.config.arguments import flat_fields
from backpropagate.training.config.specs import InspectSpec, MultiRunSpec
from backpropagate.training.runs.folder import Status
from backpropagate.web import look
from backpropagate.web.forms import all_names, setting_fields, values_of
from backpropagate.web.pages.dataset import repair_of

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'{{7*7}}${7*7}"
VERDICT: dict[str, Any] = {
    "verdict": "better", "sentence": "Better: the loss on 20 held-out rows fell from 4.2 to 0.9.", "rows": 20,
    "held_out": 20, "loss_before": 4.2, "loss_after": 0.9, "low": -4.0, "high": -3.0, "level": 0.95,
}  # fmt: skip
RESULT: dict[str, Any] = {
    "steps": 3, "total_steps": 3, "first_loss": 4.0, "final_loss": 0.52, "engine": "packed",
    "engine_reason": "a test", "verdict": VERDICT,
    "answers": [{"question": f"Q {HOSTILE}", "before": HOSTILE, "after": f"A {HOSTILE}"}],
}  # fmt: skip


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A name: nothing is trained."""
    return tmp_path / "tiny-llama"


def ended(page: Page, dataset: Path, model: Path, status: Status = Status.COMPLETED, **result: Any) -> str:
    spec = small_spec(dataset, model)
    return finished_run(page.service.store, spec, RESULT | result, status).run_id


def is_escaped(text: str) -> bool:
    return "alert(1)" in text and "<script>alert" not in text and "<img src=x" not in text


def test_every_setting_has_a_field_that_says_its_meaning_and_default(page: Page) -> None:
    text = page.get("/train").text
    for name, (_, _, info) in flat_fields().items():
        assert f'name="{name}"' in text, name
        if isinstance(info.default, int) and not isinstance(info.default, bool):
            assert re.search(rf'name="{name}"[^>]*placeholder="{info.default}"', text), name
    assert "Peak learning rate of AdamW" in text


def test_an_address_fills_the_form_in(page: Page) -> None:
    text = page.get("/train", params={"model": "smollm2-135m", "dedupe": "exact", "load_in_4bit": "on"}).text
    assert re.search(r'name="model" value="smollm2-135m"', text)
    assert "<option selected>exact</option>" in text
    assert re.search(r'name="load_in_4bit" value="on" checked', text)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("report_to", "none", "none"),
        ("report_to", "mlflow", ["mlflow"]),
        ("report_to", "mlflow, wandb", ["mlflow", "wandb"]),
        ("lora_target_modules", "attention", "attention"),
        ("lora_target_modules", "q_proj,v_proj", ["q_proj", "v_proj"]),
        ("columns", "prompt=Frage, completion=Antwort", {"prompt": "Frage", "completion": "Antwort"}),
        ("columns", '{"prompt": "Frage"}', {"prompt": "Frage"}),
        ("questions", "One?\n\n Two?", ["One?", "Two?"]),
        ("load_in_4bit", "on", True),
        ("steps", " ", None),
    ],
)
def test_the_text_of_a_field_is_the_value_of_its_setting(
    page: Page, name: str, text: str, value: Any
) -> None:
    form = {"csrf": "x", "oom_recovery": "on", name: text}  # what is checked is sent
    fields = setting_fields(all_names(), page.service.settings, form)
    assert values_of(form, fields) == ({} if value is None else {name: value})


def test_a_wrong_value_is_told_beside_what_was_typed(page: Page, dataset: Path) -> None:
    answer = page.post("/train", {"dataset": str(dataset), "lora_r": "99999", "learning_rate": HOSTILE})
    assert answer.status_code == 422 and "INPUT_VALIDATION_FAILED" in answer.text
    assert "lora_r: should be less than or equal to 1024" in answer.text
    assert 'value="99999"' in answer.text and is_escaped(answer.text) and str(dataset) in answer.text


def test_a_training_is_started_once_stopped_and_removed_by_forms(
    page: Page, dataset: Path, tiny_model: Path
) -> None:
    form = {
        "dataset": str(dataset), "model": str(tiny_model), "steps": "100000", "batch_size": "2",
        "threads": "1", "lora_r": "4", "lora_target_modules": "q_proj, v_proj",
    }  # fmt: skip
    run = page.post("/train", form).headers["location"]
    again = page.post("/train", form).headers["location"]
    assert again == f"{run}?same=1" and "of the same request" in page.get(again).text
    spec = page.service.store.find(run.rpartition("/")[2]).spec()
    assert spec.kind == "train" and spec.lora.target_modules == ["q_proj", "v_proj"]
    assert spec.training.steps == 100_000
    assert run.rpartition("/")[2] in page.get("/train").text  # what is running and waiting
    assert page.post(f"{run}/cancel").headers["location"] == run
    wait_until(lambda: "cancelled</p>" in page.get(run).text, "the end")
    refused = page.post(f"{run}/delete")
    assert refused.status_code == 400 and "was not removed" in refused.text
    assert page.post(f"{run}/delete", {"confirmed": "on"}).headers["location"] == "/runs"
    assert page.get(run).status_code == 404


def test_the_plan_is_shown_above_the_form_that_asked_for_it(page: Page) -> None:
    before = page.service.store.ids()
    answer = page.post("/train/plan", {"model": "smollm2-135m", "steps": "7"})
    assert answer.status_code == 200 and "The plan</h2>" in answer.text
    assert "billion weights" in answer.text and "Memory: peak" in answer.text
    assert 'value="smollm2-135m"' in answer.text and re.search(r'name="steps"[^>]*value="7"', answer.text)
    assert page.service.store.ids() == before


def test_text_of_models_datasets_and_runs_is_shown_as_text(page: Page, dataset: Path, model: Path) -> None:
    odd = dataset.rename(dataset.with_name("<b>rows<script>alert(1)<_script>.jsonl"))
    run_id = ended(page, odd, model)
    text = page.get(f"/runs/{run_id}").text
    assert is_escaped(text) and "<b>rows" not in text
    known = re.search(r'id="known">(.*?)</script>', text)
    assert known and json.loads(known[1])["run"]["untrusted_answers"][0]["before"] == HOSTILE
    assert "<" not in known[1]
    for path in ("/runs", "/train", "/ask", "/export"):
        assert "<b>rows" not in page.get(path).text and "<script>alert" not in page.get(path).text


def test_a_run_can_be_read_without_scripts(page: Page, dataset: Path, model: Path) -> None:
    moving = MovingRun(page.service, dataset, model)
    moving.evaluate(0, 4.2)
    for step in (1, 2, 3):
        moving.step(step, 4 / step, eta_s=95.0, tokens_per_s=312.0)
    text = page.get(f"/runs/{moving.run_id}").text
    for part in (
        "running</p>",
        "step 3 of 100",
        "312 tokens/s",
        "4.2",
        "1.333",
        "Losses as numbers",
        "curve.png",
    ):
        assert part in text, part
    assert page.get(f"/runs/{moving.run_id}/curve.png").content.startswith(b"\x89PNG")
    moving.end(Status.CANCELLED)
    text = page.get(f"/runs/{moving.run_id}").text
    assert re.search(r'data-can="resume">', text) and re.search(r'data-can="cancel" hidden', text)


def test_the_verdict_and_the_answers_stand_side_by_side(page: Page, dataset: Path, model: Path) -> None:
    text = page.get(f"/runs/{ended(page, dataset, model)}").text
    assert "Better: the loss on 20 held-out rows" in text
    assert text.index("<dt>Before</dt>") < text.index("<dt>After</dt>")


def test_the_ledger_is_a_table(page: Page, dataset: Path, model: Path) -> None:
    tasks = [
        {"name": f"task {n}", "rows": 9, "scored_on": "held_out", "scored_rows": 3, "base_score": -4.5}
        for n in (1, 2)
    ]
    runs = [
        {"run": 1, "steps": 5, "learning_rate": 1e-4, "scale": 1.0, "scores": [-2.25]},
        {"run": 2, "steps": 5, "learning_rate": 1e-4, "scale": 0.7, "scores": [-2.5, -1.125]},
    ]
    plain = small_spec(dataset, model).model_dump(exclude={"kind", "job"})
    spec = MultiRunSpec.model_validate(plain)
    ledger = {"merge_mode": "slao", "tasks": tasks, "runs": runs}
    run = finished_run(page.service.store, spec, {"num_runs": 2, "ledger": ledger})
    text = page.get(f"/runs/{run.run_id}").text
    row = re.search(r'<th scope="row">task 1</th>(.*?)</tr>', text)
    assert row and re.findall(r">([\d.]+)<", row[1]) == ["4.5", "2.25", "2.5"]


def test_runs_are_listed_by_status_and_an_interrupted_one_can_be_resumed(
    page: Page, dataset: Path, model: Path
) -> None:
    broken = ended(page, dataset, model, Status.INTERRUPTED)
    fine = ended(page, dataset, model)
    text = page.get("/runs").text
    assert f'action="/runs/{broken}/resume"' in text and fine in text
    only = page.get("/runs", params={"status": "completed"}).text
    assert f'data-run="{fine}"' in only and f'data-run="{broken}"' not in only
    assert "is no status" in page.get("/runs", params={"status": HOSTILE}).text


# --- What moves. ---
def events_of(page: Page, path: str, until: str) -> list[tuple[float, str, Any]]:
    """Time, name and data of each event, until one of this name."""
    found: list[tuple[float, str, Any]] = []
    name = ""
    with page.client.stream("GET", f"{page.url}{path}") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            if line.startswith("data: "):
                found.append((time.monotonic(), name, json.loads(line.removeprefix("data: "))))
                if name == until:
                    break
    return found


def test_a_step_is_on_the_stream_within_a_second_and_the_end_is_told(
    page: Page, dataset: Path, model: Path
) -> None:
    moving = MovingRun(page.service, dataset, model)
    moving.step(1, 3.0)
    written: dict[int, float] = {}

    def go_on() -> None:
        for step in range(2, 6):
            time.sleep(0.3)
            moving.step(step, 3.0 / step)
            written[step] = time.monotonic()
        moving.end(Status.CANCELLED)

    worker = threading.Thread(target=go_on)
    worker.start()
    events = events_of(page, f"/runs/{moving.run_id}/stream", "end")
    worker.join()
    seen = {step: at for at, name, data in events if name == "metrics" for step in reversed(data["steps"])}
    assert set(written) <= set(seen)
    assert max(seen[step] - at for step, at in written.items()) < 1
    lines = [line for _, name, data in events if name == "metrics" for _, line in data["log"]]
    assert sum("step 5/100" in line for line in lines) == 1
    assert events[-1][2]["status"] == "cancelled" and "delete" in events[-1][2]["can"]
    missed = events_of(page, f"/runs/{moving.run_id}/stream?since={events[0][2]['seq']}", "end")
    assert 1 not in [step for _, name, data in missed if name == "metrics" for step in data["steps"]]


def test_the_list_is_told_which_runs_move(page: Page, dataset: Path, model: Path) -> None:
    moving = MovingRun(page.service, dataset, model)
    moving.step(7, 3.0)
    ((_, _, runs),) = events_of(page, "/runs/stream", "runs")
    assert [run["step"] for run in runs if run["run_id"] == moving.run_id] == [7]
    moving.end()


# --- Datasets. ---
def test_a_dataset_is_shown_token_by_token_and_each_repair_is_one_click(page: Page) -> None:
    page.outputs.mkdir(parents=True, exist_ok=True)
    spec = InspectSpec.model_validate({"model": {"name": "a/b"}, "data": {"source": "rows.jsonl"}})
    finding = {"severity": "error", "kind": "parse", "count": 2, "first": ["rows.jsonl:4"]}
    row = {
        "place": "rows.jsonl:1", "tokens": 3, "trained_tokens": 1, "untrusted_text": "…",
        "untrusted_tokens": [["<|im_start|>", False], ["Hi\n", False], [HOSTILE, True]],
    }  # fmt: skip
    result = {
        "rows": 9, "usable": 7, "findings": [{**finding, "repair": 'on_bad_rows="skip"'}],
        "preview": {"note": "untrusted", "rows": [row]},
    }  # fmt: skip
    run = finished_run(page.service.store, spec, result)
    text = page.get(f"/dataset?run={run.run_id}").text
    assert "1 of 3 tokens are learnt" in text and is_escaped(text)
    assert '<span class="token">&lt;|im_start|&gt;</span><span class="token">Hi⏎\n</span>' in text
    assert re.search(r'<mark class="token trained">&lt;script&gt;', text)
    repair = re.search(r'<form method="post" action="/dataset">(.*?)Repair', text, re.DOTALL)
    assert repair and 'name="on_bad_rows" value="skip"' in repair[1]
    assert 'name="dataset" value="rows.jsonl"' in repair[1] and 'name="model" value="a/b"' in repair[1]
    assert page.get(f"/runs/{run.run_id}").headers["location"] == f"/dataset?run={run.run_id}"


@pytest.mark.slow
def test_a_real_file_is_uploaded_inspected_and_repaired(page: Page, tiny_model: Path) -> None:
    rows = b'{"prompt": "Hi", "completion": "Hello"}\n' * 2 + b"{broken\n"
    answer = page.post(
        "/dataset/upload", {"model": str(tiny_model)}, files={"file": ("a b.jsonl", rows)}
    ).headers["location"]
    wait_until(lambda: "report-title" in page.get(answer).text, "the report")
    text = page.get(answer).text
    assert "a_b.jsonl:3" in text and '<mark class="token trained">' in text
    repair = re.search(r'<form method="post" action="/dataset">(.*?)</form>', text, re.DOTALL)
    assert repair
    form = dict(re.findall(r'name="(\w+)" value="([^"]*)"', repair[1]))
    repaired = page.post("/dataset", form).headers["location"]
    wait_until(lambda: "report-title" in page.get(repaired).text, "the report")
    text = page.get(repaired).text
    assert "Train with these settings" in text, re.sub(r"<[^>]+>", " ", text)


@pytest.mark.parametrize(
    ("repair", "wanted"),
    [
        ('dedupe="exact"', {"dedupe": "exact"}),
        ("merge_system=true", {"merge_system": "on"}),
        ("max_seq_length=512", {"max_seq_length": "512"}),
        ('columns={"prompt": "Frage"}', {"columns": '{"prompt": "Frage"}'}),
        ('columns={"prompt": …}', None),
        ("output=/etc/x", None),
        ("no words", None),
    ],
)
def test_a_repair_is_a_setting_of_the_form_or_a_text(repair: str, wanted: dict[str, str] | None) -> None:
    assert repair_of(repair) == wanted


# --- Questions and exports. ---
@pytest.mark.slow
def test_what_is_asked_and_exported_is_what_the_form_says(
    page: Page, dataset: Path, tiny_model: Path
) -> None:
    for path, form in (
        (
            "/ask",
            {"source": str(tiny_model), "prompts": "One?\nTwo?", "max_new_tokens": "2", "compare_base": "on"},
        ),
        ("/export", {"source": str(tiny_model), "format": "merged", "output": "merged-model"}),
    ):
        run_id = page.post(path, form).headers["location"].rpartition("/")[2]
        spec = page.service.store.find(run_id).spec()
        page.post(f"/runs/{run_id}/cancel")
        if spec.kind == "generate":
            assert spec.prompts == ["One?", "Two?"] and spec.max_new_tokens == 2
        if spec.kind == "export":
            assert spec.format == "merged" and spec.output == str(page.outputs / "merged-model")
        wait_until(lambda: page.service.store.find(run_id).state().ended_at, "the end")  # noqa: B023
    refused = page.post("/register", {"gguf": "nothing.gguf", "name": "m"})
    assert refused.status_code == 422


def test_the_page_of_a_run_has_every_place_that_the_dashboards_views_fill() -> None:
    template = (look.HERE / "templates" / "run.html").read_text("utf-8")
    script = (look.HERE / "static" / "run.js").read_text("utf-8")
    view = (look.DASHBOARD / "view.js").read_text("utf-8")
    for name in set(re.findall(r'byId\("([\w-]+)"\)', script + view)):
        assert f'id="{name}"' in template, name


def test_no_script_makes_markup_of_text() -> None:
    for name, parts in look.FILES.items():
        if name.endswith(".js"):
            text = "".join(part.read_text("utf-8") for part in parts)
            assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", text), name


def test_a_browser_keeps_the_files_of_a_page_until_they_change(page: Page) -> None:
    style = re.search(r'href="(/static/page\.css\?v=\w+)"', page.get("/runs").text)
    assert style and "immutable" in page.get(style[1]).headers["cache-control"]
    assert page.get("/static/page.css?v=old").headers["cache-control"] == "no-cache"
    assert page.get("/runs").headers["cache-control"] == "no-store"
