"""The words by which near duplicates are found are those that a reader would name."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from backpropagate.training.data.cleaning.word_hashes import PIECE, hashed_words

WORDS = st.lists(st.text(alphabet="abcé.", min_size=1, max_size=6), max_size=12)
SPACES = st.sampled_from([" ", "  ", "\n\n", "\t", "\x1c", "\u2003", " \u00a0"])
NO_SPACES = "今日は天気がいいから散歩しましょうと友達に言われました"


def by_text(texts: list[str]) -> list[list[int]]:
    hashes, edges = hashed_words(texts)
    return [hashes[start:end].tolist() for start, end in pairwise(edges.tolist())]


@given(st.lists(WORDS, max_size=6), SPACES, st.integers(0, PIECE + 9))
def test_equal_words_have_equal_hashes_and_others_have_others(
    texts: list[list[str]], space: str, before: int
) -> None:
    found = by_text(["a" * before, *(space + space.join(words).upper() + space for words in texts)])[1:]
    named: dict[int, str] = {}
    for words, hashes in zip(texts, found, strict=True):
        assert len(words) == len(hashes)
        assert [named.setdefault(value, word) for value, word in zip(hashes, words, strict=True)] == words
    assert len(set(named.values())) == len(named)


def test_a_script_without_spaces_is_taken_letter_by_letter() -> None:
    (found,) = by_text([NO_SPACES])
    assert len(found) == len(NO_SPACES) and found[2] == by_text(["は"])[0][0]


def test_a_word_longer_than_a_piece_counts_as_several() -> None:
    before, after = by_text(["a " + "b" * 3 * PIECE + " c", "c"])
    assert before[0] == by_text(["a"])[0][0] and before[-1] == after[0] and len(before) == 2 + 3


def test_texts_without_words_have_none() -> None:
    assert by_text(["", "  ", "one two", "\n"]) == [[], [], *by_text(["one two"]), []]
