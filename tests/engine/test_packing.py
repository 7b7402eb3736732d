"""The order of the steps and their packing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backpropagate.training.engine.loop.batch import packed_batch
from backpropagate.training.engine.loop.packing import statistics
from backpropagate.training.engine.loop.prefetch import Prefetcher
from backpropagate.training.engine.plan import Example
from backpropagate.training.planning.batches import RunBatches
from backpropagate.training.planning.step_order import (
    WINDOW,
    StepOrder,
    even_shares,
    first_fit_decreasing,
    micro_batches,
)

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=80)


@given(LENGTHS, st.integers(1, 400))
def test_every_example_is_packed_once_and_no_bin_overflows(lengths: list[int], capacity: int) -> None:
    bins = first_fit_decreasing(lengths, capacity)
    assert sorted(i for items in bins for i in items) == list(range(len(lengths)))
    for items in bins:
        assert len(items) == 1 or sum(lengths[i] for i in items) <= capacity


@given(LENGTHS, st.integers(1, 9))
def test_every_example_is_one_ranks_and_shares_are_about_equal(lengths: list[int], size: int) -> None:
    shares = even_shares(lengths, size)
    assert len(shares) == size
    assert sorted(i for share in shares for i in share) == list(range(len(lengths)))
    assert all(share == sorted(share) for share in shares)
    tokens = [sum(lengths[i] for i in share) for share in shares]
    assert max(tokens) - min(tokens) <= max(lengths)
    assert even_shares(lengths, 1) == [list(range(len(lengths)))]


def tokens_of(lengths: list[int], parts: list[list[int]]) -> list[int]:
    """Of each part, the largest first."""
    return sorted((sum(lengths[i] for i in part) for part in parts), reverse=True)


@given(LENGTHS, st.integers(1, 900))
def test_micro_batches_are_as_many_as_first_fit_needs_and_none_is_larger(
    lengths: list[int], capacity: int
) -> None:
    parts, packed = micro_batches(lengths, capacity), first_fit_decreasing(lengths, capacity)
    assert sorted(i for part in parts for i in part) == list(range(len(lengths)))
    assert all(part == sorted(part) for part in parts) and parts == sorted(parts)
    assert all(len(part) == 1 or sum(lengths[i] for i in part) <= capacity for part in parts)
    assert len(parts) == len(packed)
    found, first_fit = tokens_of(lengths, parts), tokens_of(lengths, packed)
    assert found <= first_fit  # the largest, then the second largest, and so on
    assert parts == packed or found[0] - found[-1] <= max(lengths)


def test_a_step_that_hardly_exceeds_the_limit_is_halved() -> None:
    lengths = [1024] * 8 + [512]
    assert tokens_of(lengths, first_fit_decreasing(lengths, 8192)) == [8192, 512]
    assert tokens_of(lengths, micro_batches(lengths, 8192)) == [4608, 4096]


def test_first_fit_is_kept_where_even_parts_would_exceed_the_limit() -> None:
    lengths = [3, 3, 2, 2, 2]  # the longest first to the part with fewer: 7 and 5
    assert micro_batches(lengths, 6) == [[0, 1], [2, 3, 4]]


def test_an_example_beyond_the_limit_is_alone_and_the_others_stay_within_it() -> None:
    lengths = [3, 20, 3, 2, 2, 2]
    assert micro_batches(lengths, 6) == [[0, 2], [1], [3, 4, 5]]


@given(LENGTHS, st.integers(300, 900))
def test_packing_needs_few_bins(lengths: list[int], capacity: int) -> None:
    least = -(-sum(lengths) // capacity)
    # Any two bins together exceed the capacity, so on average they are at least half full.
    assert len(first_fit_decreasing(lengths, capacity)) <= 2 * least + 1


@given(LENGTHS, st.integers(0, 9), st.one_of(st.none(), st.integers(1, 600)))
def test_an_epoch_visits_every_example_once(lengths: list[int], seed: int, tokens: int | None) -> None:
    order = StepOrder(lengths, seed=seed, batch_size=7, tokens_per_step=tokens)
    seen = [i for step in range(order.steps_per_epoch) for i in order.examples(step)]
    assert sorted(seen) == list(range(len(lengths)))


@given(st.integers(0, 60), st.one_of(st.none(), st.just(400)))
def test_the_examples_of_a_step_depend_on_seed_and_step_alone(step: int, tokens: int | None) -> None:
    lengths = [10 + 37 * i % 200 for i in range(50)]
    walked = StepOrder(lengths, seed=1, batch_size=8, tokens_per_step=tokens)
    for earlier in range(step):
        walked.examples(earlier)
    fresh = StepOrder(lengths, seed=1, batch_size=8, tokens_per_step=tokens)
    assert fresh.examples(step) == walked.examples(step)


def test_the_order_of_examples_does_not_depend_on_their_lengths() -> None:
    short = StepOrder([5] * 40, seed=3, batch_size=8)
    long = StepOrder([500] * 40, seed=3, batch_size=8)
    assert [short.examples(i) for i in range(10)] == [long.examples(i) for i in range(10)]


def test_epochs_and_seeds_differ() -> None:
    order = StepOrder([5] * 40, seed=3, batch_size=40)
    assert order.examples(0) != order.examples(1)
    assert order.examples(0) != StepOrder([5] * 40, seed=4, batch_size=40).examples(0)


def test_statistics_count_what_is_there() -> None:
    order = StepOrder([10, 20, 30, 40], seed=0, batch_size=4)
    found = statistics(order, budget=50)
    assert (found.examples, found.tokens, found.longest) == (4, 100, 40)
    assert (found.steps_per_epoch, found.micro_batches_per_epoch) == (1, 2)
    assert found.fill == pytest.approx(1.0)
    assert found.padding_avoided == pytest.approx(1 - 100 / 160)


def test_labels_never_reach_into_the_next_example() -> None:
    batch = packed_batch(
        [Example([5, 6, 7], [5, -100, 7]), Example([8, 9], [8, 9])],
        multiple=8,
    )
    assert batch.input_ids.tolist() == [5, 6, 7, 8, 9, 0, 0, 0]
    assert batch.position_ids.tolist() == [0, 1, 2, 0, 1, 0, 1, 2]
    assert batch.segments.cu_seqlens.tolist() == [0, 3, 5, 8]
    assert batch.label_positions.tolist() == [1, 3]
    assert batch.targets.tolist() == [7, 9]
    assert (batch.useful_tokens, batch.examples) == (5, 2)


@pytest.mark.parametrize("ahead", [False, True])
def test_batches_made_ahead_are_the_same_and_follow_the_budget(ahead: bool) -> None:
    made: list[Example] = [Example([7] * n, [7] * n) for n in range(5, 45)]
    order = StepOrder([len(example.input_ids) for example in made], seed=0, batch_size=8)
    prefetcher = Prefetcher(made, order, budget=100, multiple=1, pinned=False, ahead=ahead)
    for step in range(7):
        if step == 4:
            prefetcher.budget = 50
        batch = prefetcher.step(step)
        assert batch.tokens == sum(order.lengths[i] for i in order.examples(step))
        assert batch.label_tokens == batch.tokens - len(order.examples(step))
        assert batch.largest_part.useful_tokens <= prefetcher.budget
    prefetcher.close()


def made_by_loop(
    order: StepOrder, steps: int, budget: int, ranks: int = 1, border: int | None = None
) -> list[list[int]]:
    """The tokens of the micro-batches that all ranks make of each step."""
    made = [Example([7] * n, [7] * n) for n in order.lengths]
    settings = {"budget": budget, "multiple": 1, "pinned": False, "ahead": False, "border": border}
    loops = [Prefetcher(made, order, **settings, rank=rank, size=ranks) for rank in range(ranks)]
    return [[part.useful_tokens for loop in loops for part in loop.step(step).parts] for step in range(steps)]


@given(LENGTHS, st.integers(1, 20), st.integers(16, 900), st.integers(1, 4))
def test_plan_and_statistics_count_the_micro_batches_that_the_loop_makes(
    lengths: list[int], examples: int, budget: int, ranks: int
) -> None:
    order = StepOrder(lengths, seed=42, batch_size=examples)
    epoch, steps = order.steps_per_epoch, 2 * order.steps_per_epoch
    made = made_by_loop(order, steps, budget, ranks)
    planned = RunBatches(lengths, examples=examples, steps=steps, processes=ranks, multiple=1)
    assert planned.largest(budget).tokens == max(max(step) for step in made)
    assert planned.micro_batches(budget) == sum(map(len, made)) / steps
    assert statistics(order, budget, ranks).micro_batches_per_epoch == sum(map(len, made[:epoch]))


@given(LENGTHS, st.integers(16, 900), st.integers(1, 300))
def test_statistics_count_the_micro_batches_on_both_sides_of_a_border(
    lengths: list[int], budget: int, border: int
) -> None:
    order = StepOrder(lengths, seed=0, batch_size=12)
    made = made_by_loop(order, order.steps_per_epoch, budget, border=border)
    assert statistics(order, budget, border=border).micro_batches_per_epoch == sum(map(len, made))


def test_more_examples_than_a_window_are_packed_a_window_at_a_time() -> None:
    lengths = [3 + i % 5 for i in range(WINDOW + 10)]
    parts = micro_batches(lengths, 40)
    assert sorted(i for part in parts for i in part) == list(range(len(lengths)))
    assert all(len({i < WINDOW for i in part}) == 1 for part in parts)


def test_every_part_of_a_batch_begins_where_kernels_want_it() -> None:
    for length in range(1, 9):
        batch = packed_batch([Example([1] * length, [1] * length), Example([2, 3], [2, 3])])
        parts = (
            batch.input_ids,
            batch.position_ids,
            batch.label_positions,
            batch.targets,
            batch.segments.cu_seqlens,
        )
        assert all(part.storage_offset() * part.element_size() % 16 == 0 for part in parts)
        assert batch.segments.cu_seqlens.tolist() == [0, length, length + 2]


def test_examples_beyond_the_border_are_in_micro_batches_of_their_own() -> None:
    lengths = [3, 30, 4, 12, 25, 9]
    together = micro_batches(lengths, 64)
    apart = micro_batches(lengths, 64, border=10)
    assert any({1, 5} <= {*items} for items in together)
    assert sorted(index for items in apart for index in items) == [*range(6)]
    assert all(len({lengths[index] > 10 for index in items}) == 1 for items in apart)
