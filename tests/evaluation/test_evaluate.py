"""Comparing any two models on the same rows: through Python, the command line and an MCP client."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest
import torch
from mcp import Client
from mcp.types import TextContent
from peft import PeftModel
from taught import ANSWERED, SAID, teach
from tiny_lora import change_json
from tiny_model import build_tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from backpropagate import Trainer
from backpropagate.cli.main import run as command
from backpropagate.server.app import build_server
from backpropagate.training.config.results import EvaluateResult
from backpropagate.training.config.settings import load_settings
from backpropagate.training.data.cleaning.exact_duplicates import row_hash
from backpropagate.training.data.formats.recognise import recognise
from backpropagate.training.errors import InputError, TrainingAbortedError
from backpropagate.training.runs.folder import RunFolder, Status
from backpropagate.training.service import TrainingService

from .conftest import Learnt


@pytest.fixture(scope="module")
def taught_run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> RunFolder:
    return teach(tiny_model, tmp_path_factory.mktemp("taught"))


@pytest.fixture
def taught(taught_run: RunFolder, tiny_model: Path) -> Trainer:
    """Of the home with the run that was taught one answer."""
    return Trainer(str(tiny_model), threads=1, output_dir=taught_run.path.parent.parent)


def written(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def asked_of_taught(path: Path, count: int = 10) -> Path:
    """Questions that the taught model answers right; they differ, so that each counts as a row."""
    return written(path, [{"prompt": SAID, "completion": ANSWERED, "id": index} for index in range(count)])


# --- What is compared. ---
def test_without_a_dataset_it_repeats_the_verdict_on_the_held_out_rows(learnt: Learnt) -> None:
    result = learnt.trainer.evaluate(learnt.run.run_id, metrics=["loss"])
    verdict = learnt.run.result.verdict
    assert verdict is not None and result.verdict == verdict.verdict == "better"
    (loss,) = result.scores
    assert (loss.this, loss.against) == pytest.approx((verdict.loss_after, verdict.loss_before), abs=1e-3)
    assert (loss.low, loss.high) == pytest.approx((verdict.low, verdict.high), abs=2e-3)
    assert result.rows == result.rows_in_all == learnt.run.result.held_out and result.trained_on == 0
    assert result.summary.startswith(f"Better: the loss on {result.rows} rows is ")
    assert learnt.last_state().warnings == []


def test_held_out_rows_whose_equals_were_left_out_are_measured_once(tiny_model: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"What is {number}?", "completion": f"It is {number}."} for number in range(20)]
    trainer = Trainer(str(tiny_model), threads=1, lora_r=4, held_out=0.5, dedupe="exact")
    run = trainer.train(written(tmp_path / "rows.jsonl", rows * 2), steps=1)
    assert trainer.evaluate(run.run_id, metrics=["loss"]).rows == run.result.held_out == 10


@pytest.mark.slow
def test_rows_that_were_trained_on_are_counted_and_named(learnt: Learnt, tmp_path: Path) -> None:
    rows = learnt.data.read_text(encoding="utf-8").splitlines(keepends=True)[:40]
    new = {"prompt": "What is new?", "completion": "This row."}
    data = tmp_path / "some.jsonl"
    data.write_text("".join([*rows, json.dumps(new)]), encoding="utf-8")
    result = learnt.trainer.evaluate(learnt.run.run_id, data, metrics=["loss"], split="test")
    known = learnt.trained_hashes & {row_hash(recognise(json.loads(row))) for row in rows}
    assert (result.rows, result.trained_on) == (41, len(known)) and 30 < len(known) <= 40
    told = "\n".join(learnt.last_state().warnings)
    assert f"{len(known)} of 41 rows were trained on" in told and "split is not used" in told


@pytest.mark.slow
def test_the_draw_is_the_same_for_a_seed_and_says_of_how_many_rows_it_is(learnt: Learnt) -> None:
    first, again = (
        learnt.trainer.evaluate(learnt.run.run_id, learnt.data, metrics=["loss"], samples=12)
        for _ in range(2)
    )
    assert first.scores == again.scores and (first.rows, first.rows_in_all) == (12, 200)
    assert "on 12 of 200 rows" in first.summary


def test_rows_that_are_right_only_now_make_it_better_and_the_reverse_makes_it_worse(
    taught: Trainer, taught_run: RunFolder, tiny_model: Path, tmp_path: Path
) -> None:
    data = asked_of_taught(tmp_path / "asked.jsonl")
    better = taught.evaluate(taught_run.run_id, data, metrics=["exact_match", "contains", "f1"])
    exact, contained, f1 = better.scores
    assert (exact.this, exact.against, exact.won, exact.lost, exact.rows) == (1, 0, 10, 0, 10)
    assert exact.p == pytest.approx(2 / 2**10, abs=1e-6) and (contained.this, f1.this) == (1, 1)
    assert (
        better.verdict == "better" and "10 rows are right only with it and 0 only without" in better.summary
    )
    flip = better.flips[0]
    assert flip.won and (flip.untrusted_question, flip.untrusted_expected) == (SAID, ANSWERED)
    assert flip.untrusted_this == ANSWERED != flip.untrusted_against and flip.place == "asked.jsonl:1"
    worse = taught.evaluate(str(tiny_model), data, taught_run.run_id, metrics=["exact_match"])
    assert worse.verdict == "worse" and worse.scores[0].lost == 10 and not worse.flips[0].won
    assert worse.against == f"run {taught_run.run_id}"


def test_few_rows_show_nothing_surely(taught: Trainer, taught_run: RunFolder, tmp_path: Path) -> None:
    few = taught.evaluate(taught_run.run_id, asked_of_taught(tmp_path / "few.jsonl", 5))
    assert few.verdict == "can't tell" and "fewer than 8 rows" in few.summary
    assert all(score.low is None for score in few.scores)


@pytest.mark.slow
def test_each_task_of_a_multi_run_has_scores_of_its_own(tiny_model: Path, tmp_path: Path) -> None:
    def rows(name: str) -> Path:
        asked = [{"prompt": f"{name} {number}?", "completion": f"{name} is {number}"} for number in range(30)]
        return written(tmp_path / f"{name}.jsonl", asked)

    trainer = Trainer(str(tiny_model), threads=1, batch_size=4)
    trainer.multi_run(tasks=[rows("law"), rows("tax")], steps_per_run=2)
    result = trainer.evaluate(metrics=["loss"])
    assert [task.task for task in result.tasks] == ["law", "tax"]
    assert sum(task.scores[0].rows for task in result.tasks) == result.rows == 16
    assert any(line.startswith("task 'law': loss ") for line in result.lines)


# --- That the numbers are right. ---
def loss_by_transformers(model: Any, tokenizer: Any, question: str, answer: str) -> float:
    """The sum over the answer and the end of its turn, in nats."""
    turns = [{"role": "user", "content": question}]
    before = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    ids = torch.tensor([[*before, *tokenizer(f"{answer}<|im_end|>", add_special_tokens=False)["input_ids"]]])
    with torch.no_grad():
        likelihoods = model(ids).logits[0, :-1].log_softmax(-1)
    wanted = ids[0, 1:]
    return -float(likelihoods[torch.arange(len(wanted)), wanted][len(before) - 1 :].sum())


@pytest.fixture
def reference(taught_run: RunFolder, tiny_model: Path) -> tuple[Any, Any]:
    """The taught model and its tokenizer, by PEFT and transformers alone."""
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    return PeftModel.from_pretrained(base, taught_run.adapter_path).eval(), AutoTokenizer.from_pretrained(
        tiny_model
    )


def test_the_loss_is_that_of_transformers(
    taught: Trainer, taught_run: RunFolder, reference: tuple[Any, Any], tmp_path: Path
) -> None:
    pairs = [
        (f"Which {word}?", f"{word} it is")
        for word in ("red", "green", "blue", "sky", "sea", "sun", "a", "b")
    ]
    rows = [{"prompt": question, "completion": answer} for question, answer in pairs]
    result = taught.evaluate(taught_run.run_id, written(tmp_path / "rows.jsonl", rows), metrics=["loss"])
    totals = [loss_by_transformers(*reference, *pair) for pair in pairs]
    tokens = sum(len(answer) + 1 for _, answer in pairs)
    assert result.scores[0].this == pytest.approx(sum(totals) / tokens, abs=1e-5)


def test_a_choice_is_the_most_likely_answer_as_lm_eval_defines_it(
    taught: Trainer, taught_run: RunFolder, reference: tuple[Any, Any], tmp_path: Path
) -> None:
    """acc takes the largest sum over the answer's tokens, acc_norm the largest per character."""
    words = ["violet", "a long name of a colour", "red", "blue", "green and blue", "x"]
    rows: list[dict[str, Any]] = [
        {"question": f"Which colour {number}?", "choices": words[number % 3 :], "answer": number % 3}
        for number in range(9)
    ]
    rows += [{"question": SAID, "choices": {"text": words, "label": list("ABCDEF")}, "answerKey": "A"}]
    result = taught.evaluate(taught_run.run_id, written(tmp_path / "choices.jsonl", rows))

    def likelihood(question: str, text: str) -> float:
        model, tokenizer = reference
        end = loss_by_transformers(model, tokenizer, question, text)
        return -(end - _end_loss(model, tokenizer, question, text))

    acc = acc_norm = 0
    for row in rows:
        texts = row["choices"]["text"] if isinstance(row["choices"], dict) else row["choices"]
        right = row.get("answer", 0)
        sums = [likelihood(row["question"], text) for text in texts]
        per_character = [value / len(text) for value, text in zip(sums, texts, strict=True)]
        acc += sums.index(max(sums)) == right
        acc_norm += per_character.index(max(per_character)) == right
    chosen, normed, loss = result.scores
    assert (chosen.metric, normed.metric, loss.metric) == ("multiple_choice", "multiple_choice_norm", "loss")
    assert (chosen.this, normed.this) == pytest.approx((acc / 10, acc_norm / 10))
    assert result.tokens == 0, "nothing is generated for rows with choices unless it is asked for"


def _end_loss(model: Any, tokenizer: Any, question: str, text: str) -> float:
    """The loss of the end of the turn alone."""
    turns = [{"role": "user", "content": question}]
    before = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    ids = torch.tensor([[*before, *tokenizer(text, add_special_tokens=False)["input_ids"]]])
    with torch.no_grad():
        return -float(model(ids).logits[0, -1].log_softmax(-1)[tokenizer.convert_tokens_to_ids("<|im_end|>")])


def test_models_of_different_tokens_are_compared_by_bits_per_byte(
    taught: Trainer, taught_run: RunFolder, tmp_path: Path
) -> None:
    other = build_tiny_model(tmp_path / "other")
    text = (other / "tokenizer.json").read_text(encoding="utf-8")
    vocabulary = json.loads(text)
    ids = vocabulary["model"]["vocab"]
    ids["v"], ids["q"] = ids["q"], ids["v"]
    (other / "tokenizer.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    data = asked_of_taught(tmp_path / "asked.jsonl")
    result = taught.evaluate(taught_run.run_id, data, other, metrics=["loss"])
    (score,) = result.scores
    assert score.metric == "bits_per_byte" and result.verdict == "better"
    assert 7 < score.against < 12 and "bits per byte on 10 rows" in result.summary
    state = RunFolder(max(taught_run.path.parent.glob("*-evaluate-*"))).state()
    assert any("different tokens" in warning for warning in state.warnings)


# --- Patterns. ---
def test_a_pattern_is_found_or_captures_what_the_right_answer_has(
    taught: Trainer, taught_run: RunFolder, tmp_path: Path
) -> None:
    data = asked_of_taught(tmp_path / "asked.jsonl")

    def score(pattern: str) -> float:
        result = taught.evaluate(taught_run.run_id, data, metrics=["regex"], pattern=pattern)
        return result.scores[0].this

    assert [score(pattern) for pattern in ("^vio", "(blue)")] == [1, 0]


# --- What is refused. ---
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"against": "RUN"}, "the same model as source"),
        ({"source": "MODEL", "dataset": "DATA"}, "source has no adapter"),
        ({"columns": {"prompt": "a"}}, "columns needs a dataset"),
        ({"source": "MODEL", "against": "RUN"}, "dataset is missing"),
        ({"dataset": "DATA", "held_out": 0.5}, "Unknown setting 'held_out'"),
        ({"dataset": "DATA", "lora_r": 8}, "Unknown setting 'lora_r'"),
        ({"dataset": "DATA", "samples": 0}, "samples"),
        ({"metrics": ["blue"]}, "metrics"),
        ({"metrics": ["regex"]}, "no pattern is given"),
        ({"metrics": ["loss"], "pattern": "a"}, "does not have regex"),
        ({"metrics": ["multiple_choice"]}, "multiple_choice needs rows with choices"),
        ({"pattern": "(a"}, "is no regular expression"),
        ({"dataset": "TEXT", "pattern": "a"}, "regex needs rows with a question"),
        ({"dataset": "BAD"}, "1 of 2 rows cannot be used"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_its_argument(
    learnt: Learnt, tmp_path: Path, given: dict[str, Any], said: str
) -> None:
    named = {
        "RUN": learnt.run.run_id,
        "MODEL": str(learnt.model),
        "DATA": learnt.data,
        "TEXT": written(tmp_path / "texts.jsonl", [{"text": "once upon a time"}] * 3),
        "BAD": written(
            tmp_path / "bad.jsonl", [{"question": "a", "choices": ["x", "y"], "answer": 2}, {"text": "a"}]
        ),
    }
    shown = {
        name: named.get(value, value) if isinstance(value, str) else value for name, value in given.items()
    }
    source = shown.pop("source", learnt.run.run_id)
    with pytest.raises((InputError, ValueError), match=said):
        learnt.trainer.evaluate(source, **shown)


def test_a_run_without_held_out_rows_asks_for_a_dataset(taught: Trainer, taught_run: RunFolder) -> None:
    with pytest.raises(InputError, match="has no held-out rows"):
        taught.evaluate(taught_run.run_id)


def test_a_stop_ends_it_without_a_result(learnt: Learnt) -> None:
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 25

    with pytest.raises(TrainingAbortedError):
        learnt.trainer.evaluate(learnt.run.run_id, should_stop=should_stop)
    state = learnt.last_state()
    assert state.status is Status.CANCELLED and state.result is None


# --- The other doors. ---
@pytest.mark.slow
def test_a_person_gets_a_table_and_a_program_json(
    taught_run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKPROPAGATE_HOME", str(taught_run.path.parent.parent))
    data = asked_of_taught(tmp_path / "asked.jsonl")
    asked = ["evaluate", taught_run.run_id, "--data", str(data), "--metric", "exact_match", "--device", "cpu"]
    assert command(asked) == 0
    shown = capsys.readouterr().out
    heads, exact = [line.split() for line in shown.splitlines() if line.startswith(("METRIC", "exact"))]
    assert heads[:4] == ["METRIC", "ROWS", "AGAINST", "THIS"] and exact[:5] == [
        "exact_match",
        "10",
        "0.0%",
        "100.0%",
        "+100.0",
    ]
    assert "Better: exact match on 10 rows is 100.0%" in shown and "only this model has it right" in shown
    assert f"    right     {ANSWERED}" in shown and f"backprop export {taught_run.run_id}" in shown
    run_id = max(taught_run.path.parent.glob("*-evaluate-*")).name
    assert command(["show-run", run_id, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["result"]["verdict"] == "better" and printed["result"]["scores"][0]["won"] == 10
    assert printed["answers"][0]["expected"] == ANSWERED
    assert command(["show-run", printed["run_id"]]) == 0
    assert "exact_match 0.0% → 100.0%" in capsys.readouterr().out


@pytest.mark.anyio
async def test_an_mcp_client_compares_once_for_an_equal_request(
    taught_run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKPROPAGATE_HOME", str(taught_run.path.parent.parent))
    data = asked_of_taught(tmp_path / "asked.jsonl")
    asked = {"source": taught_run.run_id, "dataset": str(data), "metrics": ["contains"], "wait_s": 300}
    service = TrainingService(load_settings())
    async with Client(build_server(service, [tmp_path])) as client:
        first = await client.call_tool("evaluate", asked)
        again = await client.call_tool("evaluate", asked)
        refused = await client.call_tool("evaluate", {**asked, "settings": {"order": "length"}})
        run_id = (first.structured_content or {})["run_id"]
        later = await client.call_tool("get_run", {"run_id": run_id})
    found = first.structured_content
    assert found and found["verdict"] == "better" and found["metrics"][0]["won"] == 10
    assert found["untrusted_flips"][0]["untrusted_this"] == ANSWERED
    assert isinstance(first.content[0], TextContent) and "(untrusted text)" in first.content[0].text
    assert again.structured_content and again.structured_content["run_id"] == run_id
    assert "was not measured again" in again.structured_content["note"]
    assert refused.is_error and "Unknown setting 'order'" in refused.content[0].text  # type: ignore[union-attr]
    assert later.structured_content and later.structured_content["scores"][0].startswith(
        "contains 0.0% → 100.0%"
    )


@pytest.mark.anyio
async def test_an_assistant_sees_no_held_out_rows_of_a_dataset_outside_its_folders(
    learnt: Learnt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKPROPAGATE_HOME", str(learnt.home))
    before = len(list(learnt.home.glob("runs/*")))
    async with Client(build_server(TrainingService(load_settings()))) as client:
        refused = await client.call_tool("evaluate", {"source": learnt.run.run_id})
    assert refused.is_error and isinstance(refused.content[0], TextContent)
    assert "dataset: " in refused.content[0].text and "may access" in refused.content[0].text
    assert len(list(learnt.home.glob("runs/*"))) == before


def test_after_answers_and_evaluation_of_a_model_that_has_no_gguf_another_export_is_named(
    tiny_model: Path, tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    change_json(model / "config.json", hidden_act="gelu")
    data = asked_of_taught(tmp_path / "asked.jsonl")
    trainer = Trainer(str(model), threads=1, learning_rate=0.01, held_out=0)
    run_id = trainer.train(data, steps=20).run_id
    trainer.generate(SAID, run_id, max_new_tokens=2)
    trainer.evaluate(run_id, data, metrics=["loss"])
    another = f"backprop export {run_id} --format merged"
    asked = [path.name for kind in ("generate", "evaluate") for path in home.glob(f"runs/*-{kind}-*")]
    assert len(asked) == 2
    for one in asked:
        assert f"`{another}`" in anyio.run(told_of, one)
        assert command(["show-run", one]) == 0 and f"Next: {another}" in capsys.readouterr().out


async def told_of(run_id: str) -> str:
    """What an assistant is told of a run."""
    async with Client(build_server(TrainingService(load_settings()))) as client:
        (told,) = (await client.call_tool("get_run", {"run_id": run_id})).content
    assert isinstance(told, TextContent)
    return told.text


def test_the_result_is_read_again_as_it_was_written(learnt: Learnt) -> None:
    result = learnt.trainer.evaluate(learnt.run.run_id, metrics=["loss"])
    assert EvaluateResult.model_validate_json(result.model_dump_json()) == result
