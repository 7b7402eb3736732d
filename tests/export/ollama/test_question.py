"""What a registered model is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from facts import FACTS, PHRASINGS
from finished_runs import finished_run

from backpropagate.training.data.cleaning.exact_duplicates import row_hash
from backpropagate.training.data.formats.messages import Completion
from backpropagate.training.errors import PathForbiddenError
from backpropagate.training.export.ollama.question import DEFAULT, question_for
from backpropagate.training.requests.train import train_spec
from backpropagate.training.runs.folder import RunFolder
from backpropagate.training.runs.store import RunStore

ANSWERS = [{"question": "What is zorvex?", "before": "?", "after": "violet"}]
HELD_OUT = PHRASINGS[3].format("quimdal")


def a_training(
    home: Path, dataset: Path, answers: list[dict[str, str]], held_out: list[int], **arguments: Any
) -> RunFolder:
    spec = train_spec(arguments={"dataset": str(dataset), "model": "smollm2-135m", **arguments})
    run = finished_run(RunStore(home), spec, {"answers": answers})
    run.write_provenance({"dataset": {"held_out_rows": held_out}})
    return run


@pytest.fixture
def rows(tmp_path: Path) -> tuple[Path, int]:
    """Prompts with completions, and the hash of one of them."""
    lines = [
        f'{{"prompt": "{phrasing.format(key)}", "completion": "{value}"}}\n'
        for key, value in FACTS.items()
        for phrasing in PHRASINGS
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(lines), encoding="utf-8")
    return path, row_hash(Completion("prompt_completion", HELD_OUT, FACTS["quimdal"]))


def test_a_question_that_the_run_answered_comes_first_with_its_answer(home: Path, dataset: Path) -> None:
    run = a_training(home, dataset, ANSWERS, [], system="", max_new_tokens=9)
    question = question_for(run)
    assert (question.text, question.trained_answer) == ("What is zorvex?", "violet")
    assert question.max_new_tokens == 9
    assert question.messages() == [
        {"role": "system", "content": ""},
        {"role": "user", "content": "What is zorvex?"},
    ]


def test_a_given_question_is_compared_where_the_run_answered_the_same(home: Path, dataset: Path) -> None:
    run = a_training(home, dataset, ANSWERS, [])
    assert question_for(run, "What is zorvex?").trained_answer == "violet"
    other = question_for(run, "What is quimdal?")
    assert (other.text, other.trained_answer) == ("What is quimdal?", None)


def test_without_answers_a_prompt_that_was_held_out_is_asked(home: Path, rows: tuple[Path, int]) -> None:
    path, held_out = rows
    question = question_for(a_training(home, path, [], [held_out]))
    assert (question.text, question.trained_answer) == (HELD_OUT, None)
    assert "held out" in question.origin


def test_a_held_out_conversation_keeps_its_system_message(home: Path, dataset: Path) -> None:
    from backpropagate.training.config.specs import DataGroup
    from backpropagate.training.data.formats.reading import ReadProgress, open_data, read_rows

    data = DataGroup(source=str(dataset))
    row = next(iter(read_rows(open_data(data), None, ReadProgress("", "")))).row
    assert row is not None
    question = question_for(a_training(home, dataset, [], [row_hash(row)]))
    assert question.system == "" and question.text == PHRASINGS[0].format("zorvex")


def test_a_question_of_ours_where_there_is_nothing_better(home: Path, rows: tuple[Path, int]) -> None:
    path, held_out = rows
    gone = a_training(home, path, [], [held_out])
    assert question_for(a_training(home, path, [], [])) == DEFAULT
    assert question_for(None) == DEFAULT
    assert question_for(None, "Why?").text == "Why?"

    def forbid(_: Path) -> None:
        raise PathForbiddenError("no")

    assert question_for(gone, permit=forbid) == DEFAULT
    path.unlink()
    assert question_for(gone) == DEFAULT
