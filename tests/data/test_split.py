"""The held-out split: seeded, stable, with duplicates on one side."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backpropagate.training.data.split.held_out import MIN_HELD_OUT, Share, held_out, held_out_count

HASHES = st.lists(st.integers(1, 2**64 - 1), min_size=80, max_size=200, unique=True)


def split(
    hashes: list[int], seed: int = 0, parts: list[int] | None = None, share: Share = "auto"
) -> set[int]:
    mask = held_out(np.array(hashes, np.uint64), np.array(parts or [0] * len(hashes), np.uint16), share, seed)
    return set(np.flatnonzero(mask).tolist())


@pytest.mark.parametrize(
    "rows, share, count",
    [
        (0, "auto", 0), (19, "auto", 0), (20, "auto", 8), (79, "auto", 8), (80, "auto", 8), (200, "auto", 10),
        (10**6, "auto", 500),
    ],
)  # fmt: skip
def test_five_percent_but_at_least_eight_and_at_most_five_hundred_are_held_out(
    rows: int, share: Share, count: int
) -> None:
    assert held_out_count(rows, share) == count


@pytest.mark.parametrize(
    "rows, share, count",
    [
        (50, 0.2, 10),
        (79, 0.05, 4),
        (10, 0.1, 1),
        (5, 0.01, 1),
        (10**6, 0.05, 50_000),
        (3, 0.99, 2),
        (60, 0, 0),
    ],
)
def test_a_share_that_was_asked_for_is_held_out_whatever_the_size_of_the_dataset(
    rows: int, share: Share, count: int
) -> None:
    assert held_out_count(rows, share) == count


@settings(max_examples=30)
@given(HASHES, st.integers(0, 2**32))
def test_the_split_has_the_stated_size_and_does_not_depend_on_the_order_of_rows(
    hashes: list[int], seed: int
) -> None:
    chosen = split(hashes, seed)
    assert len(chosen) == held_out_count(len(hashes), "auto") >= MIN_HELD_OUT
    backwards = split(hashes[::-1], seed)
    assert {hashes[index] for index in chosen} == {hashes[::-1][index] for index in backwards}


@settings(max_examples=30)
@given(HASHES)
def test_another_seed_gives_another_split(hashes: list[int]) -> None:
    assert any(split(hashes, 1) != split(hashes, seed) for seed in (2, 3, 4))


@settings(max_examples=30)
@given(HASHES, st.lists(st.integers(0, 79), min_size=1, max_size=200))
def test_equal_rows_are_on_one_side(hashes: list[int], repeated: list[int]) -> None:
    rows = hashes + [hashes[index] for index in repeated]
    chosen = split(rows)
    held = {rows[index] for index in chosen}
    assert all((row in held) == (index in chosen) for index, row in enumerate(rows))


@settings(max_examples=30)
@given(HASHES, st.lists(st.integers(1, 2**64 - 1), min_size=1, max_size=20))
def test_the_split_stays_nearly_the_same_when_rows_are_appended(hashes: list[int], more: list[int]) -> None:
    before = {hashes[index] for index in split(hashes)}
    rows = list(dict.fromkeys(hashes + more))
    after = {rows[index] for index in split(rows)}
    assert len(before - after) <= len(set(more) & after)


def test_every_file_gives_its_share() -> None:
    hashes = np.random.RandomState(1).randint(1, 2**63, 1000).tolist()
    parts = [0] * 800 + [1] * 200
    chosen = split(hashes, parts=parts)
    assert len(chosen) == 50 and sum(index >= 800 for index in chosen) == 10


def test_a_cluster_too_large_for_the_split_stays_in_training() -> None:
    assert split([7] * 500 + list(range(100, 200))).isdisjoint(range(500))
