"""Whichever engine trains, the same examples from the same LoRA give the same losses."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from backpropagate.training.config.fields import EngineName
from backpropagate.training.config.specs import LoraGroup
from backpropagate.training.engine.loop.checkpoints import Checkpoints
from backpropagate.training.engine.plan import Data, Example, Plan
from backpropagate.training.engine.run import run_engine

from .conftest import Events, a_plan

PAUSE_S = 0.3


@pytest.fixture
def plan(tiny_model: Path, tmp_path: Path) -> Plan:
    return a_plan(
        model=tiny_model,
        adapter=tmp_path / "adapter",
        lora=LoraGroup(r=4, alpha=8),
        steps=8,
        batch_size=4,
        learning_rate=1e-2,
        warmup_steps=2,
        weight_decay=0.1,
        max_grad_norm=0.1,  # below the gradients' norms, so that clipping counts
        order="as_given",
        threads=1,
    )


@pytest.fixture
def data(examples: Callable[..., list[Example]]) -> Data:
    return Data(examples(*(8 + 5 * i % 23 for i in range(16)), vocab=20), examples(15, 9, seed=9, vocab=20))


def curve(engine: EngineName, plan: Plan, data: Data, folder: Path) -> list[float]:
    """The loss of each step, then that on the held-out examples."""
    events = Events()
    checkpoints = Checkpoints(folder / f"checkpoints-{engine}")
    outcome = run_engine(plan.changed(engine=engine), data, events, lambda: False, checkpoints)
    assert outcome.engine == engine and outcome.eval_loss is not None
    return [*events.losses(), outcome.eval_loss]


@pytest.mark.parametrize("schedule", ["linear", "constant"])
def test_packed_autograd_and_trl_follow_the_same_curve(
    schedule: str, plan: Plan, data: Data, tmp_path: Path
) -> None:
    plan = plan.changed(lr_scheduler=schedule)
    packed = curve("packed", plan, data, tmp_path)
    assert len(packed) == 9 and packed[-2] < packed[0]
    assert curve("autograd", plan, data, tmp_path) == pytest.approx(packed, rel=1e-4)
    assert curve("trl", plan, data, tmp_path) == pytest.approx(packed, rel=1e-4)


def test_each_engine_goes_on_from_another_ones_adapter(plan: Plan, data: Data, tmp_path: Path) -> None:
    curve("trl", plan.changed(adapter=tmp_path / "first"), data, tmp_path)
    further = plan.changed(continue_from=tmp_path / "first", warmup_steps=0)
    packed = curve("packed", further, data, tmp_path)
    assert curve("trl", further, data, tmp_path) == pytest.approx(packed, rel=1e-4)
    assert packed[0] < curve("packed", plan, data, tmp_path / "anew")[0]


def test_an_engine_without_checkpoints_says_that_a_resumed_run_begins_again(
    plan: Plan, data: Data, tmp_path: Path, events: Events
) -> None:
    resumed = plan.changed(engine="trl", resume=True, steps=1)
    run_engine(resumed, data, events, lambda: False, Checkpoints(tmp_path / "c"))
    assert "begins again" in events.of("warning")[0]["message"]


@pytest.mark.parametrize("engine", ["packed", "trl"])
def test_held_out_rows_are_evaluated_every_so_many_steps_and_once_at_the_end(
    engine: EngineName, plan: Plan, data: Data, tmp_path: Path, events: Events
) -> None:
    plan = plan.changed(engine=engine, eval_every=3, steps=6)
    outcome = run_engine(plan, data, events, lambda: False, Checkpoints(tmp_path / "c"))
    found = events.of("eval")
    assert [event["step"] for event in found] == [0, 3, 6] and found[-1]["loss"] == outcome.eval_loss
    assert outcome.eval_loss_before == found[0]["loss"] > found[1]["loss"] > found[2]["loss"]
    assert found[0]["perplexity"] > 1


def test_trl_says_that_it_does_not_stop_early(plan: Plan, data: Data, tmp_path: Path, events: Events) -> None:
    plan = plan.changed(engine="trl", eval_every=1, patience=1, steps=1)
    run_engine(plan, data, events, lambda: False, Checkpoints(tmp_path / "c"))
    assert "patience is not used" in events.of("warning")[0]["message"]


def test_trl_tells_how_far_its_evaluation_is_and_that_it_trains_again(
    plan: Plan, data: Data, tmp_path: Path, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backpropagate.training.events.REPORT_EVERY_S", 0)
    monkeypatch.setattr("backpropagate.training.engine.trl.engine.TOGETHER", 1)
    plan = plan.changed(engine="trl", eval_every=1, steps=2)
    run_engine(plan, data, events, lambda: False, Checkpoints(tmp_path / "c"))
    before = "evaluating the model as it is"
    assert [phase["message"] for phase in events.of("phase") if phase["phase"] == "training"] == [
        before, f"{before}: 1 of 2 rows", "training",
        "evaluating", "evaluating: 1 of 2 rows", "training", "evaluating", "evaluating: 1 of 2 rows",
    ]  # fmt: skip


@pytest.mark.parametrize(("evaluation", "steps"), [(1, 0), (2, 1), (3, 2)])
def test_trl_stops_in_the_middle_of_an_evaluation(
    evaluation: int,
    steps: int,
    plan: Plan,
    data: Data,
    tmp_path: Path,
    events: Events,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("backpropagate.training.engine.trl.engine.TOGETHER", 1)
    plan = plan.changed(engine="trl", eval_every=1, steps=2)

    def should_stop() -> bool:
        begun = [phase for phase in events.of("phase") if phase["message"].startswith("evaluating")]
        return len(begun) >= evaluation

    outcome = run_engine(plan, data, events, should_stop, Checkpoints(tmp_path / "c"))
    assert (outcome.status, outcome.steps, outcome.eval_loss) == ("cancelled", steps, None)
    assert len(events.of("eval")) == evaluation - 1


@pytest.mark.parametrize("engine", ["packed", "trl"])
def test_the_time_of_a_late_answer_whether_to_stop_is_in_no_speed(
    engine: EngineName, plan: Plan, data: Data, tmp_path: Path, events: Events
) -> None:
    pauses = [PAUSE_S]

    def late() -> bool:
        if len(events.of("step")) == 3 and pauses:
            time.sleep(pauses.pop())
        return False

    began = time.monotonic()
    outcome = run_engine(plan.changed(engine=engine), data, events, late, Checkpoints(tmp_path / "c"))
    assert not pauses and outcome.seconds < time.monotonic() - began - PAUSE_S
