"""Scores of answers, rows with choices, patterns, and the statistics of what changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpropagate.training.data.formats.choices import choice_row
from backpropagate.training.data.readers.rows import RowError
from backpropagate.training.errors import InputError
from backpropagate.training.evaluation import paired_difference as statistics
from backpropagate.training.evaluation import pattern as patterns
from backpropagate.training.evaluation.text_scores import contains, exact_match, normalised, token_f1


@pytest.mark.parametrize(
    ("answer", "right", "scores"),
    [
        ("The Eiffel Tower.", "eiffel tower", (1, 1, 1)),
        ("It is Paris, of course", "Paris", (0, 1, 2 / 6)),
        ("17", "7", (0, 0, 0)),
        ("in 7 days", "7", (0, 1, 0.5)),
        ("parisian", "Paris", (0, 0, 0)),
        ("答案是北京。", "北京", (0, 1, 0)),
        ("the", "a", (0, 0, 0)),
        ("", "yes", (0, 0, 0)),
        ("yes yes", "yes", (0, 1, 2 / 3)),
    ],
)
def test_answers_are_compared_as_squad_normalises_them(
    answer: str, right: str, scores: tuple[float, float, float]
) -> None:
    assert (exact_match(answer, right), contains(answer, right), token_f1(answer, right)) == pytest.approx(
        scores
    )


@given(answer=st.text(max_size=40), right=st.text(max_size=20))
def test_what_matches_exactly_is_contained_and_f1_is_symmetric(answer: str, right: str) -> None:
    assert normalised(answer) == normalised(answer.upper().lower()) or not answer.isascii()
    assert exact_match(answer, right) <= contains(answer, right)
    assert 0 <= token_f1(answer, right) == token_f1(right, answer) <= 1
    assert exact_match(answer, answer) == 1


QUESTION = {"question": "Which?"}


@pytest.mark.parametrize(
    ("row", "right"),
    [
        ({"choices": ["red", "blue"], "answer": 1}, 1),
        ({"options": ["red", "blue"], "answer": "blue"}, 1),
        ({"choices": ["red", "blue"], "answer": "B"}, 1),
        ({"endings": ["red", "blue"], "label": "1"}, 1),
        ({"choices": ["2", "1"], "answer": "1"}, 1),
        ({"choices": {"text": ["red", "blue"], "label": ["1", "2"]}, "answerKey": "2"}, 1),
        ({"choices": [{"label": "X", "text": "red"}, {"label": "Y", "text": "blue"}], "answer": "Y"}, 1),
        ({"options": {"A": "red", "B": "blue"}, "answer_idx": "B"}, 1),
        ({"choices": [3, 4], "answer": 0}, 0),
    ],
)
def test_the_right_one_is_found_by_label_text_letter_or_index(row: dict[str, Any], right: int) -> None:
    found = choice_row({**QUESTION, **row})
    assert found is not None and found.right == right and found.row.completion == found.choices[right]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({**QUESTION, "choices": ["a", "b"], "answer": 2}, "no index of 2 answers, which count from 0"),
        ({**QUESTION, "choices": ["a", "b"], "answer": "c c"}, "is none of the 2 answers"),
        ({**QUESTION, "choices": ["a", "b"]}, "choices without answer"),
        ({"choices": ["a", "b"], "answer": 0}, "choices without question"),
    ],
)
def test_choices_without_a_question_or_a_right_one_are_an_unusable_row(
    row: dict[str, Any], said: str
) -> None:
    with pytest.raises(RowError, match=said):
        choice_row(row)


def test_what_has_no_choices_in_text_is_another_row() -> None:
    assert choice_row({"question": "a", "answer": "b"}) is None
    assert choice_row({"choices": [{"message": "hi"}], "question": "a", "answer": "b"}) is None


def test_columns_and_context_and_keys_that_are_not_read() -> None:
    row = {"Frage": "Was?", "choices": ["a", "b"], "answer": 0, "context": "Da.", "why": "so"}
    found = choice_row(row, {"question": "Frage"})
    assert found is not None and found.row.prompt == "Da.\n\nWas?" and found.row.unread == ("why",)


def test_a_pattern_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "SECONDS", 1.0)
    with pytest.raises(InputError, match="takes more than 1 s for 1 answers"):
        patterns.pattern_scores("(a+)+$", ["a" * 60 + "b"], ["a"])


def test_a_group_is_compared_with_what_it_captures_in_the_right_answer() -> None:
    answers = ["so it is #### 5", "#### 5 then #### 6", "5", "#### 7"]
    right = ["1 + 4 #### 5", "#### 6", "#### 5", "7"]
    assert patterns.pattern_scores(r"#### (\d+)", answers, right) == [1, 1, 0, 1]
    assert patterns.pattern_scores(r"\d", ["a 1", "b"], ["", ""]) == [1, 0]


@pytest.mark.parametrize(
    ("won", "lost", "p"), [(5, 0, 0.0625), (10, 2, 0.0386), (3, 3, 1.0), (0, 0, 1.0), (8, 0, 0.0078)]
)
def test_mcnemars_test_is_the_exact_one(won: int, lost: int, p: float) -> None:
    """`p` from the two-sided binomial test at one half."""
    assert statistics.mcnemar(won, lost) == statistics.mcnemar(lost, won) == pytest.approx(p, abs=1e-4)


def test_many_rows_are_resampled_in_parts_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    made = np.random.default_rng(0)
    before, after = made.uniform(0, 9, 50).tolist(), made.uniform(0, 9, 50).tolist()
    whole = statistics.paired_difference(before, after, [3] * 50)
    monkeypatch.setattr(statistics, "DRAWN_AT_ONCE", 50 * 7000)
    parts = statistics.paired_difference(before, after, [3] * 50)
    assert parts == pytest.approx(whole, abs=0.05) and parts.mean == whole.mean
