"""What the benchmarks measure by: windows after a warm-up, the times of a run's steps, equal shares."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from backpropagate import Trainer

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """A module of the benchmarks by its name; what it sets for its processes does not stay."""
    monkeypatch.syspath_prepend(str(FOLDER))

    def load(name: str) -> Any:
        with patch.dict(os.environ):
            return importlib.import_module(name)

    return load


def test_windows_open_once_both_the_steps_and_the_seconds_of_a_warm_up_have_passed(
    benchmark: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    workload = benchmark("workload")
    now = 0.0
    monkeypatch.setattr(workload.time, "perf_counter", lambda: now)
    first_steps: list[int] = []
    for warmup_s in (0.0, 20.0):
        now = 0.0
        windows = workload.Windows(False, 1, 4.0, warmup_steps=6, warmup_s=warmup_s)
        while not windows.done:
            now += 1.0 if windows.steps else 30.0  # the first step compiles, which is no warm-up
            windows.tick(100)
        first_steps.append(windows.steps - 4)
        assert windows.rates == [100.0]
    assert first_steps == [6, 21]


def event(step: int, second: int, tokens_per_s: float) -> dict[str, Any]:
    return {"step": step, "t": f"2026-11-28T00:00:{second:02}.000Z", "tokens_per_s": tokens_per_s}


def test_steps_that_were_read_from_the_device_together_have_the_time_of_the_first_of_them(
    benchmark: Callable[[str], Any],
) -> None:
    run_speed = benchmark("run_speed")
    steps = [event(1, 1, 10.0), *(event(n, 2, 20.0) for n in (2, 3)), *(event(n, 4, 21.0) for n in (4, 5, 6))]
    steps[2] = event(3, 3, 20.0)  # written down late
    reads = run_speed.reads_of(steps)
    assert [read.last for read in reads] == [1, 3, 6]
    first, last = run_speed.second_half(reads)
    assert (first.last, last.last, last.at - first.at) == (3, 6, 2.0)


def test_a_run_whose_steps_were_read_at_too_few_times_has_no_speed(benchmark: Callable[[str], Any]) -> None:
    run_speed = benchmark("run_speed")
    with pytest.raises(ValueError, match="9 steps were read at 1 times"):
        run_speed.second_half(run_speed.reads_of([event(n, 1, 10.0) for n in range(1, 10)]))


def test_the_speed_of_a_run_counts_the_tokens_of_its_own_steps(
    benchmark: Callable[[str], Any], tiny_model: Path, dataset: Path
) -> None:
    run_speed = benchmark("run_speed")
    trainer = Trainer(str(tiny_model), lora_r=4, batch_size=4, threads=1, held_out=0.0)
    run = trainer.train(dataset, steps=8)
    speed = run_speed.speed_of(run.adapter_path.parent)
    tokens = run_speed.tokens_of_steps(run.adapter_path.parent, range(4, 8))
    assert speed.steps == 4 and speed.tokens_per_step == sum(tokens) / 4 and speed.tokens_per_s > 0


def test_parts_of_the_settings_hold_each_of_them_once_and_take_about_as_long(
    benchmark: Callable[[str], Any],
) -> None:
    plan_accuracy = benchmark("plan_accuracy")
    parts = [plan_accuracy.share_of(plan_accuracy.CASES, number, 4) for number in range(4)]
    assert sorted(case for part in parts for case in part) == sorted(plan_accuracy.CASES)
    seconds = [sum(map(plan_accuracy.seconds_of, part)) for part in parts]
    assert max(seconds) <= 1.2 * min(seconds)
