"""A whole script for OpenAI's API: files, a job, its events, and a chat with the model that it trained."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from facts import write_dataset
from http_server import Served, serving
from openai import OpenAI
from openai_client import ended_job, openai_client
from waiting import wait_until

import backpropagate
from backpropagate.training.config.results import GenerateResult
from backpropagate.training.runs.folder import ENDED, Status
from backpropagate.training.runs.store import RunStore

pytestmark = pytest.mark.slow

PAGE = Path(backpropagate.__file__).parent / "docs" / "openai.md"
CHAT: list[Any] = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi"},
    {"role": "user", "content": [{"type": "text", "text": "What is the value of zorvex?"}]},
]


def trained(client: OpenAI, dataset: Path, model: Path) -> str:
    """The name of a model that was trained as such scripts do."""
    with dataset.open("rb") as file:
        training = client.files.create(file=file, purpose="fine-tune")
    rows = dataset.read_bytes().splitlines(keepends=True)[:8]
    validation = client.files.create(file=("validation.jsonl", b"".join(rows)), purpose="fine-tune")
    settings: Any = {"n_epochs": 1, "batch_size": 8, "learning_rate_multiplier": 2}
    job = client.fine_tuning.jobs.create(
        model=str(model),
        training_file=training.id,
        validation_file=validation.id,
        suffix="facts",
        method={"type": "supervised", "supervised": {"hyperparameters": settings}},
    )
    ended = ended_job(client, job)
    assert ended.status == "succeeded" and ended.trained_tokens and ended.finished_at
    assert ended.hyperparameters.model_dump() == settings
    events = list(client.fine_tuning.jobs.list_events(job.id, limit=7))
    assert len({event.id for event in events}) == len(events)
    metrics: list[Any] = [event.data for event in events if event.type == "metrics"]
    assert any("valid_loss" in data for data in metrics) and any("train_loss" in data for data in metrics)
    assert ended.fine_tuned_model
    return ended.fine_tuned_model


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    more = {"home": folder / "home", "BACKPROPAGATE_KEEP_MODEL_S": "30"}
    with serving(folder, "--openai", "--root", str(tiny_model), **more) as server:
        yield server


@pytest.fixture
def client(served: Served) -> Iterator[OpenAI]:
    with openai_client(served) as found:
        yield found


@pytest.fixture(scope="module")
def request_of(served: Served, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A request for a chat with a model that was trained before."""
    dataset = write_dataset(tmp_path_factory.mktemp("data") / "facts.jsonl")
    with openai_client(served) as client:
        name = trained(client, dataset, tiny_model)
    return {"model": name, "messages": CHAT, "max_tokens": 24, "temperature": 0}


def test_a_chat_is_answered_whole_and_while_it_is_made_by_a_model_that_stays(
    served: Served, client: OpenAI, request_of: dict[str, Any]
) -> None:
    whole = client.chat.completions.create(**request_of)
    (choice,) = whole.choices
    assert choice.message.content and choice.finish_reason == "length"
    assert whole.usage and whole.usage.completion_tokens == 24 and whole.usage.prompt_tokens > 24
    store = RunStore(served.home)
    wait_until(lambda: whole.id.removeprefix("chatcmpl-") not in store.ids(), "the end of what is not kept")
    streamed: Any = {
        **request_of, "stream": True, "stream_options": {"include_usage": True}, "store": True,
    }  # fmt: skip
    told = list(client.chat.completions.create(**streamed))
    said = "".join(one.delta.content or "" for chunk in told for one in chunk.choices)
    assert said == choice.message.content and told[0].choices[0].delta.role == "assistant"
    assert told[-1].usage == whole.usage and told[-2].choices[0].finish_reason == "length"
    run = store.find(told[0].id.removeprefix("chatcmpl-"))
    result = run.state().result
    assert isinstance(result, GenerateResult) and result.warm


def test_the_script_of_the_page_runs(
    served: Served,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """As it stands there, with another model and the two variables that the server prints."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    write_dataset(tmp_path / "train.jsonl")
    monkeypatch.chdir(tmp_path)
    address = re.search(r"OPENAI_BASE_URL=(\S+),", served.said)
    assert address
    monkeypatch.setenv("OPENAI_BASE_URL", address[1])
    monkeypatch.setenv("OPENAI_API_KEY", served.token)
    small = code.replace("smollm2-135m", str(tiny_model)).replace('"n_epochs": 3', '"n_epochs": 1')
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # a script leaves its file and its client open
        exec(compile(small, "docs/openai.md", "exec"), {})
    said = capfd.readouterr().out
    assert "training loss=" in said and "successfully completed" in said


def test_an_answer_ends_at_a_stop_text_and_is_the_same_again_with_a_seed(
    client: OpenAI, request_of: dict[str, Any]
) -> None:
    said = client.chat.completions.create(**request_of).choices[0].message.content or ""
    cut = client.chat.completions.create(**request_of, stop=said[3]).choices[0]
    assert (cut.message.content, cut.finish_reason) == (said.partition(said[3])[0].strip(), "stop")
    sampled: Any = {**request_of, "temperature": 1.5, "seed": 3}
    first, second = (client.chat.completions.create(**sampled).choices[0] for _ in range(2))
    assert first.message.content == second.message.content


@pytest.mark.parametrize("stream", [False, True])
def test_a_conversation_that_is_too_long_is_refused_before_anything_is_said(
    client: OpenAI, request_of: dict[str, Any], stream: bool
) -> None:
    long: Any = {**request_of, "messages": [{"role": "user", "content": "x " * 3000}], "stream": stream}
    with pytest.raises(openai.BadRequestError, match="has a context of") as refused:
        client.chat.completions.create(**long)
    assert refused.value.param == "messages"


def test_an_answer_that_nobody_waits_for_is_stopped(
    served: Served, client: OpenAI, request_of: dict[str, Any]
) -> None:
    endless: Any = {**request_of, "max_tokens": None, "stream": True}
    with client.chat.completions.create(**endless) as stream:
        run = RunStore(served.home).find(next(iter(stream)).id.removeprefix("chatcmpl-"))
    wait_until(lambda: run.state().status in ENDED, "the end of the run")
    assert run.state().status is Status.CANCELLED
