"""OpenAI's fine-tuning interface, as its own Python package uses it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import pytest
from finished_runs import finished_run
from http_server import Served, serving
from openai import OpenAI
from openai_client import ended_job, openai_client
from starlette.requests import Request
from waiting import busy_device, small_spec, wait_until

from backpropagate.server.openai import upload
from backpropagate.server.openai.chat_request import chat_request
from backpropagate.server.openai.errors import ApiError
from backpropagate.training.config.specs import JobRecord
from backpropagate.training.events import Step
from backpropagate.training.runs.folder import RunFolder
from backpropagate.training.runs.store import RunStore

ROW = b'{"prompt": "1 + 1?", "completion": "2"}\n'
RESULT = {"kind": "train", "steps": 3, "total_steps": 3, "final_loss": 0.5}
QUESTION: list[Any] = [{"role": "user", "content": "1 + 1?"}]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("openai")
    roots = ["--root", str(tiny_model)]
    with serving(folder, "--openai", *roots, home=folder / "home") as server:
        yield server


@pytest.fixture
def client(served: Served) -> Iterator[OpenAI]:
    with openai_client(served) as found:
        yield found


@pytest.fixture(scope="module")
def finished(served: Served, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[RunFolder]:
    """Three trainings that have ended, the newest first, with what an interface shows of them."""
    data = tmp_path_factory.mktemp("data") / "facts.jsonl"
    data.write_bytes(ROW)
    store, runs = RunStore(served.home), list[RunFolder]()
    for number in range(3):
        record = JobRecord(training_file="file-x", suffix=f"s{number}", metadata={"number": str(number)})
        spec = small_spec(data, tiny_model).model_copy(update={"job": record})
        run = finished_run(store, spec, RESULT)
        for step in range(1, 4):
            run.event_log().append(Step(step=step, total_steps=3, loss=1 / step))
        run.adapter_path.mkdir()
        (run.adapter_path / "adapter_config.json").write_text("{}")
        runs.insert(0, run)
    return runs


def name_of(run: RunFolder, number: int) -> str:
    return f"ft:tiny-llama:s{number}:{run.run_id}"


# --- files ---
def test_a_file_is_uploaded_listed_read_and_deleted(client: OpenAI) -> None:
    first, second = (client.files.create(file=(name, ROW), purpose="fine-tune") for name in ("a", "b.jsonl"))
    assert (second.filename, second.bytes, second.status) == ("b.jsonl", len(ROW), "processed")
    listed = [file.id for file in client.files.list(order="asc")]
    assert {first.id, second.id} <= set(listed)
    assert client.files.retrieve(first.id) == first
    assert client.files.content(first.id).content == ROW
    page = client.files.list(limit=1)
    assert page.has_more and len(page.data) == 1
    assert len({file.id for file in client.files.list(limit=1)}) == len(listed)
    assert client.files.delete(first.id).deleted
    with pytest.raises(openai.NotFoundError, match="There is no file"):
        client.files.retrieve(first.id)
    assert first.id not in [file.id for file in client.files.list()]


@pytest.mark.parametrize(
    "name", ["../../escaped.jsonl", "/etc/passwd", "C:\\con", "\x1b[31m\n.jsonl", "x" * 1000]
)
def test_a_files_name_makes_no_path(client: OpenAI, served: Served, name: str) -> None:
    kept = client.files.create(file=(name, ROW), purpose="fine-tune")
    assert len(kept.filename) <= 255 and "\x1b" not in kept.filename and "\n" not in kept.filename
    inside = served.home / "files" / "owner" / kept.id
    assert {file.name for file in inside.iterdir()} == {"data.jsonl", "file.json"}
    assert not list(served.home.parent.rglob("*escaped*"))


@pytest.mark.parametrize(
    ("content", "purpose", "param"),
    [
        (b"", "fine-tune", "file"),
        (b"question,answer\n1,2\n", "fine-tune", "file"),
        (b"\xff\xfe\x00", "fine-tune", "file"),
        (b"[" * 100_000, "fine-tune", "file"),
        (ROW, "batch", "purpose"),
    ],
)
def test_a_file_that_no_job_can_use_is_refused(
    client: OpenAI, content: bytes, purpose: Any, param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.files.create(file=("a.jsonl", content), purpose=purpose)
    assert refused.value.param == param and refused.value.type == "invalid_request_error"


@pytest.mark.anyio
@pytest.mark.parametrize("announced", [True, False])
async def test_a_huge_upload_ends_at_the_limit(monkeypatch: pytest.MonkeyPatch, announced: bool) -> None:
    monkeypatch.setattr(upload, "MOST_BYTES", 2**20)
    monkeypatch.setattr(upload, "FORM_BYTES", 2**10)
    sent = 0

    async def endless() -> dict[str, Any]:
        nonlocal sent
        sent += 2**18
        head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        head = head if sent == 2**18 else b""
        return {"type": "http.request", "body": head + b"x" * 2**18, "more_body": True}

    headers = [(b"content-type", b"multipart/form-data; boundary=x")]
    headers += [(b"content-length", b"9" * 17)] if announced else []
    request = Request({"type": "http", "method": "POST", "headers": headers}, endless)
    with pytest.raises(ApiError) as refused:
        upload.announced_size(request)
        await upload.sent_form(request)
    assert refused.value.status == 413
    assert sent <= 2**21 and (sent == 0) == announced


@pytest.mark.slow
def test_the_files_of_a_caller_have_a_limit(tmp_path: Path) -> None:
    with (
        serving(tmp_path, "--openai", BACKPROPAGATE_PRINCIPAL__DISK_GIB="0.0000001") as server,
        openai_client(server) as client,
        pytest.raises(openai.InternalServerError, match="GiB are permitted") as refused,
    ):
        client.files.create(file=("a.jsonl", ROW * 10), purpose="fine-tune")
    assert refused.value.status_code == 507


# --- jobs ---
def test_a_job_is_queued_found_again_by_its_key_and_cancelled(
    client: OpenAI, served: Served, tiny_model: Path
) -> None:
    file = client.files.create(file=("a.jsonl", ROW * 3), purpose="fine-tune")
    request: dict[str, Any] = {
        "model": str(tiny_model),
        "training_file": file.id,
        "suffix": "sums",
        "seed": 7,
        "metadata": {"who": "ada"},
        "hyperparameters": {"n_epochs": 2, "batch_size": "auto", "learning_rate_multiplier": 0.5},
    }
    busy = busy_device(Path(f"{served.home}-runtime"))
    try:
        job = client.fine_tuning.jobs.create(**request, extra_headers={"Idempotency-Key": "mine"})
        assert job.status in ("queued", "validating_files") and job.fine_tuned_model is None
        assert job.hyperparameters.model_dump() == {
            "n_epochs": 2, "batch_size": "auto", "learning_rate_multiplier": 0.5,
        }  # fmt: skip
        again = client.fine_tuning.jobs.create(**request, extra_headers={"Idempotency-Key": "mine"})
        assert again.id == job.id
        spec: Any = RunStore(served.home).find(job.id.removeprefix("ftjob-")).spec()
        assert (spec.training.epochs, spec.training.learning_rate_multiplier) == (2, 0.5)
        assert (spec.training.seed, spec.training.batch_size) == (7, "auto")
        assert client.fine_tuning.jobs.cancel(job.id).id == job.id
        assert ended_job(client, job).status == "cancelled"
    finally:
        busy.release()
    with pytest.raises(openai.BadRequestError, match="ended already: it was cancelled"):
        client.fine_tuning.jobs.cancel(job.id)
    wait_until(lambda: job.id[6:] in served.audit(), "the line of the audit log")
    assert "ada" not in served.audit() and "sums" not in served.audit()


def test_a_paused_job_can_be_resumed(client: OpenAI, served: Served, tiny_model: Path) -> None:
    file = client.files.create(file=("a.jsonl", ROW * 3), purpose="fine-tune")
    busy = busy_device(Path(f"{served.home}-runtime"))
    try:
        job = client.fine_tuning.jobs.create(model=str(tiny_model), training_file=file.id)
        client.fine_tuning.jobs.pause(job.id)
        assert ended_job(client, job).status == "cancelled"
        assert client.fine_tuning.jobs.resume(job.id).status in ("queued", "validating_files")
        messages = [event.message for event in client.fine_tuning.jobs.list_events(job.id, limit=100)]
        assert "Queued again." in messages and "The job was cancelled." in messages
        client.fine_tuning.jobs.cancel(job.id)
        ended_job(client, job)
    finally:
        busy.release()


def test_jobs_are_listed_in_pages_and_by_their_metadata(client: OpenAI, finished: list[RunFolder]) -> None:
    ids = [f"ftjob-{run.run_id}" for run in finished]
    assert [job.id for job in client.fine_tuning.jobs.list(limit=2, after=ids[0]).data] == ids[1:]
    listed = [job.id for job in client.fine_tuning.jobs.list(limit=1)]
    assert listed == [job.id for job in client.fine_tuning.jobs.list().data] and set(ids) <= set(listed)
    (only,) = client.fine_tuning.jobs.list(metadata={"number": "1"})
    assert only.id == ids[1] and only.metadata == {"number": "1"}


def test_a_finished_job_has_events_a_checkpoint_results_and_a_model(
    client: OpenAI, finished: list[RunFolder]
) -> None:
    run, job_id = finished[0], f"ftjob-{finished[0].run_id}"
    job = client.fine_tuning.jobs.retrieve(job_id)
    assert (job.status, job.fine_tuned_model) == ("succeeded", name_of(run, 2))
    events = list(client.fine_tuning.jobs.list_events(job_id, limit=1))
    assert [event.message for event in events][-1] == "Created fine-tuning job."
    steps: list[Any] = [event.data for event in events if event.type == "metrics"]
    assert [data["step"] for data in steps] == [3, 2, 1] and steps[0]["train_loss"] == pytest.approx(1 / 3)
    (checkpoint,) = client.fine_tuning.jobs.checkpoints.list(job_id)
    assert checkpoint.fine_tuned_model_checkpoint == job.fine_tuned_model and checkpoint.step_number == 3
    (results,) = job.result_files
    assert client.files.retrieve(results).purpose == "fine-tune-results"
    assert client.files.content(results).text.splitlines()[:2] == ["step,train_loss,valid_loss", "1,1.0,"]
    assert job.fine_tuned_model in [model.id for model in client.models.list()]
    assert client.models.retrieve(job.fine_tuned_model).owned_by == "local"
    assert client.models.retrieve("qwen3-0.6b").owned_by == "Qwen"


def test_the_reason_of_a_failed_job_names_its_file(client: OpenAI, tiny_model: Path) -> None:
    file = client.files.create(file=("a.jsonl", ROW + b'{"a": 1}\n'), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(model=str(tiny_model), training_file=file.id)
    failed = ended_job(client, job)
    assert failed.error and (failed.status, failed.error.param) == ("failed", "training_file")
    assert failed.error.code == "invalid_training_file" and "data.jsonl:2" in failed.error.message
    newest = client.fine_tuning.jobs.list_events(job.id, limit=1).data[0]
    assert newest.level == "error" and newest.message == failed.error.message


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"model": "gpt-4o-mini"}, "model"),
        ({"model": "/etc"}, "model"),
        ({"training_file": "file-0123456789abcdef01234567"}, "training_file"),
        ({"training_file": "/etc/passwd"}, "training_file"),
        ({"validation_file": "../../http-token"}, "validation_file"),
        ({"hyperparameters": {"n_epochs": "many"}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"n_epochs": True}}, "hyperparameters.n_epochs"),
        ({"suffix": "x" * 65}, "suffix"),
        ({"seed": -1}, "seed"),
        ({"metadata": {"a": "b" * 513}}, "metadata.a"),
        ({"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.1}}}}, "method.type"),
        ({"method": {"type": "reinforcement", "reinforcement": {"grader": {}}}}, "method.type"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "x"}}]}, "integrations"),
        ({"extra_body": {"lora_r": 4}}, "lora_r"),
    ],
)
def test_a_job_that_cannot_be_is_refused_with_the_parameter(
    client: OpenAI, tiny_model: Path, changed: dict[str, Any], param: str
) -> None:
    file = client.files.create(file=("a.jsonl", ROW), purpose="fine-tune")
    request: dict[str, Any] = {"model": str(tiny_model), "training_file": file.id, **changed}
    with pytest.raises(openai.BadRequestError) as refused:
        client.fine_tuning.jobs.create(**request)
    assert refused.value.param == param and refused.value.code


# --- chat ---
@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "assistant", "content": "2"}]}, "messages"),
        ({"messages": [{"role": "tool", "tool_call_id": "x", "content": "2"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content"),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}]}, "messages.0.tool_calls"),
        ({"messages": [{"role": "user", "content": "x" * 20_001}]}, "messages"),
        ({"n": 2}, "n"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"logprobs": True}, "logprobs"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"max_tokens": 2049}, "max_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 1}, "max_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"extra_body": {"top_k": 3}}, "top_k"),
    ],
)
def test_a_parameter_of_a_chat_that_is_not_supported_is_refused_by_name(
    client: OpenAI, finished: list[RunFolder], changed: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**{"model": name_of(finished[0], 2), "messages": QUESTION, **changed})
    assert refused.value.param == param


def test_who_asks_is_no_part_of_the_question() -> None:
    asked = {"model": "m", "messages": QUESTION}
    labels = {"user": "u", "metadata": {"a": "b"}, "safety_identifier": "s", "prompt_cache_key": "k"}
    assert chat_request({**asked, **labels}) == chat_request(asked)


# --- who may ask what ---
def test_a_wrong_key_and_an_unknown_address_are_told_in_openais_form(client: OpenAI, served: Served) -> None:
    with openai_client(served, "sk-wrong") as stranger, pytest.raises(openai.AuthenticationError) as refused:
        stranger.models.list()
    assert refused.value.code == "invalid_api_key"
    with pytest.raises(openai.NotFoundError) as unknown:
        client.embeddings.create(model="x", input="y")
    assert unknown.value.code == "unknown_url"


UNKNOWN = ["x", "ftjob-", "ftjob-x", "ftjob-%2e%2e", "ftjob-..%2fhttp-token", "file-x", "%00", "a%2fb"]


@pytest.mark.parametrize("given", UNKNOWN)
@pytest.mark.parametrize("address", ["files/{}", "files/{}/content", "fine_tuning/jobs/{}", "models/{}"])
def test_an_id_that_is_none_leads_nowhere(served: Served, address: str, given: str) -> None:
    url = served.url.replace("/mcp", f"/v1/{address.format(given)}")
    found = httpx.get(url, headers=served.headers())
    assert found.status_code == 404 and "message" in found.json()["error"]


@pytest.mark.parametrize(
    ("headers", "status"), [({"host": "evil.example"}, 421), ({"origin": "http://evil.example"}, 403)]
)
def test_a_page_of_another_site_gets_nothing(served: Served, headers: dict[str, str], status: int) -> None:
    url = served.url.replace("/mcp", "/v1/models")
    refused = httpx.get(url, headers={**served.headers(), **headers})
    assert refused.status_code == status and refused.json()["error"]["code"] == "wrong_host"


@pytest.mark.parametrize("body", [b"", b"[1]", b"\xff", b"[" * 100_000, b" " * (5 << 20)])
def test_a_body_that_is_no_object_is_refused(served: Served, body: bytes) -> None:
    url = served.url.replace("/mcp", "/v1/fine_tuning/jobs")
    headers = {"content-type": "application/json", "authorization": f"Bearer {served.token}"}
    refused = httpx.post(url, content=body, headers=headers)
    assert refused.status_code == (413 if len(body) > 4 << 20 else 400)
    assert refused.json()["error"]["code"] == "invalid_body"


@pytest.mark.slow
def test_the_interface_is_there_only_if_it_was_asked_for_and_reads_only_if_so(tmp_path: Path) -> None:
    with serving(tmp_path) as without:
        url = without.url.replace("/mcp", "/v1/models")
        assert httpx.get(url, headers=without.headers()).status_code == 404
    with serving(tmp_path, "--openai", "--read-only") as reading, openai_client(reading) as client:
        assert "OPENAI_BASE_URL=" in reading.said
        assert client.models.list().data
        with pytest.raises(openai.PermissionDeniedError, match="only reads"):
            client.files.create(file=("a.jsonl", ROW), purpose="fine-tune")
    lines = [json.loads(line) for line in reading.audit().splitlines()]
    assert [(line["method"], line["outcome"]) for line in lines[-2:]] == [
        ("GET /v1/models", "ok"),
        ("POST (unknown)", "http 403"),
    ]
