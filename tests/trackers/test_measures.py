"""Events as points: steps over all runs of a multi-run, and what is worth telling of the end."""

from __future__ import annotations

from backpropagate.training.config.results import TrainResult
from backpropagate.training.events import Evaluated, Event, Phase, Step
from backpropagate.training.trackers.measures import Measures, summary_of

T = "2026-11-27T12:00:00.000Z"


def step(number: int, run: int | None = None) -> Step:
    return Step(t=T, step=number, total_steps=2, loss=1.0, run=run, num_runs=run and 2)


def evaluated(number: int) -> Evaluated:
    return Evaluated(t=T, step=number, loss=2.0)


def steps_of(events: list[Event]) -> list[tuple[int, str]]:
    measures = Measures()
    points = [point for event in events if (point := measures.point(event))]
    return [(point.step, "eval" if "eval/loss" in point.values else "train") for point in points]


def test_the_steps_of_a_multi_run_go_on_from_run_to_run() -> None:
    first = [evaluated(0), step(1, 1), step(2, 1), evaluated(2)]
    second = [evaluated(0), step(1, 2), step(2, 2), evaluated(2)]
    assert steps_of([*first, Phase(t=T, phase="training", message="run 2"), *second]) == [
        (0, "eval"), (1, "train"), (2, "train"), (2, "eval"),
        (2, "eval"), (3, "train"), (4, "train"), (4, "eval"),
    ]  # fmt: skip


def test_steps_that_are_done_again_after_a_crash_keep_their_numbers() -> None:
    before = [step(1, 1), step(2, 1), step(1, 2), step(2, 2)]
    assert [number for number, _ in steps_of([*before, step(2, 2)])] == [1, 2, 3, 4, 4]
    assert [number for number, _ in steps_of([step(1), step(2), step(2)])] == [1, 2, 2]


def test_the_summary_has_what_is_known() -> None:
    result = TrainResult(final_loss=0.5, engine="packed")
    assert summary_of(result, None)["final/train_loss"] == 0.5
    assert "final/eval_loss" not in summary_of(result, None)
    assert summary_of(None, "RUNTIME_GPU_OOM") == {"final/error": "RUNTIME_GPU_OOM"}
