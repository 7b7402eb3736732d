"""The text of an answer while it is made: what is told of it stays as it is."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from backpropagate.training.engine.new_text import certain, until

TEXT = st.text("ab \n\N{REPLACEMENT CHARACTER}é", max_size=12)


@given(TEXT, TEXT, st.lists(st.text("ab ", min_size=1, max_size=3), max_size=3))
@example("ab", "a", ["b", "aba"])
def test_what_is_certain_is_how_the_whole_answer_begins(begun: str, more: str, stop: list[str]) -> None:
    whole = until(begun.rstrip("\N{REPLACEMENT CHARACTER}") + more, stop).strip()
    assert whole.startswith(certain(begun, stop))


@given(TEXT, st.lists(st.text("ab ", min_size=1, max_size=3), min_size=1, max_size=3))
def test_an_answer_ends_before_the_first_of_its_stop_texts(text: str, stop: list[str]) -> None:
    kept = until(text, stop)
    assert text.startswith(kept) and not any(each in kept for each in stop)
    assert kept == text or any(text[len(kept) :].startswith(each) for each in stop)
