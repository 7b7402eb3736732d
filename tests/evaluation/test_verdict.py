"""A verdict says "better" only where answers belong to their questions, and else that it can't tell."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from statistics import NormalDist
from types import SimpleNamespace

import numpy as np
import pytest
from facts import FACTS, PHRASINGS, write_dataset
from facts import answer as fact
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from backpropagate import Trainer, TrainingRun
from backpropagate.cli.main import run as command
from backpropagate.training import events
from backpropagate.training.config.results import GeneralProbe
from backpropagate.training.data.chat_template.question_text import question_frame
from backpropagate.training.data.chat_template.render import render_chat
from backpropagate.training.data.tokens.example import IGNORED, Example
from backpropagate.training.evaluation import held_out_answers
from backpropagate.training.evaluation.general_probe import QUESTIONS, general_examples
from backpropagate.training.evaluation.judge import Affordable
from backpropagate.training.evaluation.other_questions import exchanged, last_answer
from backpropagate.training.evaluation.paired_difference import Difference, outside, paired_difference
from backpropagate.training.evaluation.verdict import Measured, judged, warnings_of
from backpropagate.training.models.tokenizer import load_tokenizer

from .conftest import Learnt

TEMPLATES = Path(__file__).parents[1] / "data" / "templates"


def trained_on(path: Path, model: Path, steps: int, **settings: object) -> TrainingRun:
    values = {"threads": 1, "learning_rate": 1e-2, **settings}
    return Trainer(str(model), **values).train(path, steps=steps)  # type: ignore[arg-type]


def shuffled(path: Path) -> Path:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    answers = [row["messages"][-1]["content"] for row in rows]
    random.Random(1).shuffle(answers)
    for row, answer in zip(rows, answers, strict=True):
        row["messages"][-1]["content"] = answer
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def test_facts_that_were_learnt_are_better_on_rows_that_were_not_trained_on(
    learnt: Learnt, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = learnt.run
    verdict = run.result.verdict
    assert verdict is not None and verdict.verdict == "better"
    assert verdict.low < verdict.high < 0 < (verdict.association_low or 0)
    assert verdict.rows == verdict.held_out == run.result.held_out
    # Two readers of the same rows: the loop's own evaluation, and the verdict's.
    assert verdict.loss_after == pytest.approx(run.result.eval_loss, abs=1e-3)
    assert verdict.loss_before == pytest.approx(run.result.eval_loss_before, abs=1e-3)
    assert verdict.general is not None and verdict.general.questions == len(QUESTIONS)
    card = (run.adapter_path / "README.md").read_text(encoding="utf-8")
    assert verdict.sentence in card and verdict.sentence.startswith("Better: the loss on")
    assert len(verdict.untrusted_answers) == 3 and verdict.no_answers is None
    for answer in verdict.untrusted_answers:
        assert any(answer.question in (text.format(key) for text in PHRASINGS) for key in FACTS)
        assert answer.expected in map(fact, FACTS) and answer.before != answer.after
    assert any(answer.after == answer.expected for answer in verdict.untrusted_answers), (
        "it has learnt the facts"
    )
    assert verdict.untrusted_answers[0].question not in card, (
        "held-out rows are not published with the adapter"
    )
    monkeypatch.setenv("BACKPROPAGATE_HOME", str(learnt.home))
    assert command(["show-run", run.run_id]) == 0
    shown = capsys.readouterr().out
    assert all(f"      right     {answer.expected}" in shown for answer in verdict.untrusted_answers)


def test_answers_that_take_too_long_are_left_out_and_the_reason_is_given(
    tmp_path: Path,
    quick_learner: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(held_out_answers, "allowed_s", lambda seconds: 0.0)
    run = trained_on(write_dataset(tmp_path / "facts.jsonl"), quick_learner, steps=2)
    verdict = run.result.verdict
    assert verdict is not None and verdict.untrusted_answers == []
    assert verdict.no_answers == "they would take more than a tenth of the training's time"
    assert command(["show-run", run.run_id]) == 0
    assert f"no answers to held-out questions: {verdict.no_answers}" in capsys.readouterr().out


@pytest.mark.slow
def test_held_out_questions_tell_how_far_each_model_is_with_its_answers(
    tmp_path: Path, quick_learner: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "REPORT_EVERY_S", 0.0)
    monkeypatch.setattr(held_out_answers, "allowed_s", lambda seconds: 60.0)
    run = trained_on(write_dataset(tmp_path / "facts.jsonl"), quick_learner, steps=20)
    assert run.result.verdict is not None and run.result.verdict.untrusted_answers
    lines = (run.run_folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
    told = [event for event in map(json.loads, lines) if "questions answered by" in event.get("message", "")]
    shares = [event["fraction"] for event in told]
    assert shares[0] == 0 and shares == sorted(shares) and len(set(shares)) > 10
    assert told[0]["message"] == "0 of 3 held-out questions answered by the base model, 0 tokens of the next"
    assert "by the tuned model" in told[-1]["message"] and told[-1]["phase"] == "judging"


def test_texts_have_no_questions_to_ask(tmp_path: Path, quick_learner: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": f"Number {n} is here."}) + "\n" for n in range(30)))
    verdict = trained_on(path, quick_learner, steps=2).result.verdict
    assert verdict is not None and verdict.no_answers == "no held-out row has a short question"


@pytest.mark.parametrize("path", sorted(TEMPLATES.glob("*.jinja")), ids=lambda path: path.stem)
def test_a_question_is_shown_without_the_templates_text(path: Path) -> None:
    tokenizer = SimpleNamespace(
        chat_template=path.read_text(encoding="utf-8"),
        special_tokens_map={"bos_token": "<s>", "eos_token": "</s>"},
    )
    frame = question_frame(tokenizer)
    user, assistant = (
        {"role": "user", "content": "What is user?\nSay why."},
        {"role": "assistant", "content": "a"},
    )
    for turns in ([user], [user, assistant, {"role": "user", "content": "And why?"}]):
        prompt = render_chat(tokenizer, turns, add_generation_prompt=True)
        assert frame.question(prompt) == turns[-1]["content"]


def test_the_adapter_that_is_kept_is_the_one_that_was_trained(learnt: Learnt) -> None:
    run = learnt.run
    values = load_file(run.adapter_path / "adapter_model.safetensors").values()
    assert any(value.any() for value in values)
    assert run.answers[0]["before"] != run.answers[0]["after"], "the LoRA is back after the base was measured"


@pytest.mark.slow
def test_of_shuffled_answers_only_the_form_is_learnt_and_the_verdict_says_so(
    tmp_path: Path, quick_learner: Path
) -> None:
    verdict = trained_on(
        shuffled(write_dataset(tmp_path / "facts.jsonl")), quick_learner, steps=120
    ).result.verdict
    assert verdict is not None and verdict.verdict == "can't tell"
    assert verdict.high < 0, "the loss itself fell: the model learnt what answers look like"
    assert "not which one belongs to which question" in verdict.sentence


def test_a_training_that_does_harm_is_worse_and_names_the_rows(learnt: Learnt, tmp_path: Path) -> None:
    merged = learnt.by.export("merged", output=tmp_path / "merged")
    run = trained_on(learnt.data, merged.path, learning_rate=0.5, steps=40)
    verdict = run.result.verdict
    assert verdict is not None and verdict.verdict == "worse" and verdict.low > 0
    assert any("the model is worse than before" in warning for warning in run.warnings)
    assert 1 <= len(verdict.worse_rows) <= 3
    assert all(row.loss_after > row.loss_before and row.untrusted_text for row in verdict.worse_rows)


@pytest.mark.parametrize("held_out", [0, 0.02])
def test_without_a_verdict_the_result_says_why(tmp_path: Path, quick_learner: Path, held_out: float) -> None:
    run = trained_on(write_dataset(tmp_path / "facts.jsonl"), quick_learner, steps=2, held_out=held_out)
    few = f"a verdict needs 8 held-out rows, and there are {run.result.held_out}"
    why = few if run.result.held_out else "no rows were held out"
    assert run.result.verdict is None and run.result.no_verdict == why
    assert run.result.judgement == f"Can't tell: {why}."
    assert f"**Can't tell: {why}.**" in (run.adapter_path / "README.md").read_text(encoding="utf-8")


LOSSES = st.lists(st.floats(0, 50), min_size=20, max_size=40)


@given(before=LOSSES, seed=st.integers(0, 99))
def test_the_interval_is_that_of_a_plain_bootstrap_and_wider_for_few_rows(
    before: list[float], seed: int
) -> None:
    made = np.random.default_rng(seed)
    after, tokens = made.uniform(0, 50, len(before)), made.integers(1, 40, len(before))
    found = paired_difference(before, after.tolist(), tokens.tolist())
    assert found.low <= found.mean <= found.high
    assert found.mean == pytest.approx((sum(after) - sum(before)) / sum(tokens), abs=1e-9)
    drawn = made.integers(0, len(before), (3000, len(before)))
    change = after - np.array(before)
    plain = np.quantile([change[rows].sum() / tokens[rows].sum() for rows in drawn], [0.005, 0.995])
    width = found.high - found.low
    assert 0 <= plain[0] - found.low + 0.1 * width <= 0.4 * width
    assert 0 <= found.high - plain[1] + 0.1 * width <= 0.4 * width


@pytest.mark.parametrize(("rows", "t"), [(8, 3.499), (10, 3.250), (30, 2.756), (200, 2.601)])
def test_the_percentiles_follow_students_distribution(rows: int, t: float) -> None:
    """`t` from its tables, for 99 %."""
    expected = NormalDist().cdf(-math.sqrt(rows / (rows - 1)) * t)
    assert outside(rows) == pytest.approx(expected, rel=0.35)


@pytest.mark.parametrize("rows", [8, 12, 40])
@pytest.mark.slow
def test_of_differences_without_an_effect_hardly_one_in_a_hundred_is_called_sure(rows: int) -> None:
    made = np.random.default_rng(rows)
    tokens = [10] * rows
    intervals = [
        paired_difference([0.0] * rows, made.normal(0, 1, rows).tolist(), tokens) for _ in range(400)
    ]
    assert sum(found.low > 0 or found.high < 0 for found in intervals) <= 12


def test_the_last_answer_of_a_conversation_and_none_of_a_text() -> None:
    turns = Example([1, 2, 3, 4, 5, 6, 7], [IGNORED, IGNORED, 3, IGNORED, 5, 6, IGNORED])
    found = last_answer(turns)
    assert found is not None and found.prompt == [1, 2, 3, 4] and found.answer == [5, 6]
    assert found.example() == Example([1, 2, 3, 4, 5, 6], [IGNORED] * 4 + [5, 6])
    for text in (Example([1, 2], [1, 2]), Example([1, 2, 3], [IGNORED, 2, 3]), Example([1], [IGNORED])):
        assert last_answer(text) is None


def test_each_answer_follows_questions_of_other_answers() -> None:
    texts = ((1, 7), (2, 7), (3, 8), (4, 9))
    rows = [Example([q, 0, a], [IGNORED, IGNORED, a]) for q, a in texts]
    found = exchanged([*rows, Example([5, 6], [5, 6])])
    assert [(one.row, [other.input_ids for other in one.others]) for one in found] == [
        (0, [[3, 0, 7], [4, 0, 7]]),
        (1, [[3, 0, 7], [4, 0, 7]]),
        (2, [[4, 0, 8], [1, 0, 8]]),
        (3, [[1, 0, 9], [2, 0, 9]]),
    ]
    assert all(one.own == rows[one.row] for one in found)
    assert exchanged(rows[:2]) == [], "both have the same answer"


def test_a_verdict_takes_a_tenth_of_the_trainings_time_or_a_second() -> None:
    rows = [Example([0] * 100, [0] * 100)] * 500
    long = Affordable.after(tokens=1_000_000, seconds=1000)  # 3,000 tokens a second are measured
    assert len(long.first(rows, 4, 500)) == 500 and len(long.first(rows, 40, 500)) == 75
    assert len(Affordable.after(tokens=100, seconds=1.0).first(rows, 1, 500)) == 3
    assert Affordable.after(tokens=0, seconds=0).first(rows, 1, 500) == []


def measured(change: Difference, association: Difference | None = None, loss: float = 2.0) -> Measured:
    return Measured(20, 30, loss, loss + change.mean, change, association, None)


@pytest.mark.parametrize(
    ("change", "association", "verdict", "words"),
    [
        (Difference(-1, -1.2, -0.8), None, "better", "20 of 30 held-out rows"),
        (Difference(-1, -1.2, -0.8), Difference(0.5, 0.1, 0.9), "better", "a change of -1"),
        (Difference(-1, -1.2, -0.8), Difference(0.5, -0.1, 0.9), "can't tell", "what answers look like"),
        (Difference(-1, -2.2, 0.8), Difference(0.5, 0.1, 0.9), "can't tell", "-2.2 to +0.8"),
        (Difference(0.001, -0.1, 0.1), None, "can't tell", "hardly any effect"),
        (Difference(1, 0.2, 1.8), Difference(0.5, 0.1, 0.9), "worse", "perplexity 7.39 to 20.1"),
    ],
)
def test_the_sentence_says_the_verdict_and_its_numbers(
    change: Difference, association: Difference | None, verdict: str, words: str
) -> None:
    found = judged(measured(change, association), [], 0.0)
    assert found.verdict == verdict and words in found.sentence
    assert found.sentence.lower().startswith(f"{verdict}: ") and found.sentence.endswith(".")


def test_learning_by_heart_and_forgetting_are_warned_of() -> None:
    better = judged(measured(Difference(-1, -1.2, -0.8)), [], 0.0)
    assert warnings_of(better, None) == warnings_of(better, 0.9) == []
    assert "by heart" in warnings_of(better, 0.01)[0]
    forgot = GeneralProbe(questions=24, loss_before=2.0, loss_after=3.0, low=0.5, high=1.5)
    kept = forgot.model_copy(update={"low": -0.1})
    assert "24 general questions" in warnings_of(better.model_copy(update={"general": forgot}), None)[0]
    assert warnings_of(better.model_copy(update={"general": kept}), None) == []


def test_a_loss_without_bounds_still_has_a_sentence() -> None:
    assert "above 10^21" in judged(measured(Difference(90, 80, 99), loss=2.0), [], 0.0).sentence
    assert math.isfinite(judged(measured(Difference(0, 0, 0)), [], 0.0).loss_after)


def test_the_general_questions_are_asked_in_the_models_own_form(quick_learner: Path) -> None:
    tokenizer = load_tokenizer(quick_learner)
    examples = general_examples(tokenizer)
    assert len(examples) == len(QUESTIONS)
    assert tokenizer.decode(examples[0].input_ids).count("<|im_start|>") >= 2
    tokenizer.chat_template = None
    assert len(general_examples(tokenizer)) == len(QUESTIONS)
