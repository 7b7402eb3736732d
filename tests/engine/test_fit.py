"""The loop, with the packed step on a tiny model."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from backpropagate.training.config.specs import LoraGroup
from backpropagate.training.engine.loop.batch import PackedBatch
from backpropagate.training.engine.loop.checkpoints import Checkpoints
from backpropagate.training.engine.loop.fit import fit
from backpropagate.training.engine.packed.engine import PackedStep, load_packed_step
from backpropagate.training.engine.plan import Data, Example, Outcome, Plan
from backpropagate.training.engine.run import run_engine
from backpropagate.training.errors import GpuOutOfMemoryError, InputError, TrainingError
from backpropagate.training.events import Event

from .conftest import Events, a_plan, tiny_model


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    tiny_model("qwen2").save_pretrained(folder)
    return folder


@pytest.fixture
def data(examples: Callable[..., list[Example]]) -> Data:
    lengths = [6 + 7 * i % 25 for i in range(24)]
    # A small vocabulary, so that there is something to learn.
    return Data(examples(*lengths, vocab=12), examples(20, 9, 14, seed=9, vocab=12))


@pytest.fixture
def plan(model_folder: Path, tmp_path: Path) -> Plan:
    return a_plan(
        model=model_folder,
        adapter=tmp_path / "adapter",
        lora=LoraGroup(r=4, alpha=8, dropout=0.1),
        steps=12,
        batch_size=4,
        learning_rate=5e-3,
        warmup_steps=2,
        eval_every=3,
        checkpoint_every_steps=2,
        checkpoint_every_s=math.inf,
    )


class Crash(Exception):
    pass


def never() -> bool:
    return False


def trained(plan: Plan, data: Data, folder: Path, events: Events | None = None) -> Outcome:
    return run_engine(plan, data, events or Events(), never, Checkpoints(folder))


def adapter_of(plan: Plan) -> bytes:
    return (plan.adapter / "adapter_model.safetensors").read_bytes()


def test_a_run_learns_and_tells(plan: Plan, data: Data, tmp_path: Path, events: Events) -> None:
    outcome = trained(plan, data, tmp_path / "c", events)
    losses = events.losses()
    assert outcome.status == "completed" and outcome.engine == "packed"
    assert len(losses) == 12 and losses[-1] < losses[0] - 1
    assert outcome.train_loss == losses[-1]
    assert [e["step"] for e in events.of("eval")] == [0, 3, 6, 9, 12]
    assert outcome.eval_loss == events.of("eval")[-1]["loss"] < events.of("eval")[0]["loss"]
    assert outcome.eval_loss_before == events.of("eval")[0]["loss"]
    assert [e["step"] for e in events.of("checkpoint")] == [2, 4, 6, 8, 10, 12]
    assert set(events.of("step")[0]) == {
        "step", "total_steps", "loss", "learning_rate", "grad_norm", "tokens_per_s", "eta_s",
    }  # fmt: skip
    assert outcome.packing is not None and outcome.packing.steps_per_epoch == 6


def test_the_same_plan_gives_the_same_adapter(plan: Plan, data: Data, tmp_path: Path) -> None:
    trained(plan, data, tmp_path / "c")
    first = adapter_of(plan)
    trained(plan, data, tmp_path / "d")
    assert adapter_of(plan) == first
    trained(plan.changed(seed=1), data, tmp_path / "e")
    assert adapter_of(plan) != first


def test_epochs_are_counted_when_no_steps_are_given(plan: Plan, data: Data, tmp_path: Path) -> None:
    outcome = trained(plan.changed(steps=None, epochs=1.5), data, tmp_path / "c")
    assert outcome.total_steps == outcome.steps == 9


@pytest.mark.parametrize(
    "other",
    [
        {"batch_size": 2, "gradient_accumulation_steps": 2},
        {"micro_batch_tokens": 40},
        {"micro_batch_tokens": 1},
        {"recompute": "gate_up"},
        {"recompute": "everything"},
    ],
)
def test_how_a_step_is_split_or_computed_does_not_change_it(
    other: dict[str, Any], plan: Plan, data: Data, tmp_path: Path
) -> None:
    plan = plan.changed(lora=LoraGroup(r=4, alpha=8))
    first, second = Events(), Events()
    trained(plan, data, tmp_path / "c", first)
    trained(plan.changed(**other), data, tmp_path / "d", second)
    assert second.losses() == pytest.approx(first.losses(), rel=1e-5)


def test_a_step_can_be_filled_with_tokens(plan: Plan, data: Data, tmp_path: Path, events: Events) -> None:
    chosen = plan.changed(tokens_per_step=64, micro_batch_tokens=64, steps=None, epochs=2)
    outcome = trained(chosen, data, tmp_path / "c", events)
    assert outcome.packing is not None
    assert outcome.packing.fill > 0.85
    assert outcome.packing.micro_batches_per_epoch == outcome.packing.steps_per_epoch


# --- Resuming.


class CrashAfter(Events):
    """A report whose process dies at the n-th event."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        if len(self.all) == self.count:
            raise Crash


@pytest.mark.parametrize("moment", [1, 5, 9, 14, 22])
def test_a_crashed_run_goes_on_bit_for_bit(moment: int, plan: Plan, data: Data, tmp_path: Path) -> None:
    plan = plan.changed(patience=3)
    whole, rest = Events(), Events()
    expected = trained(plan, data, tmp_path / "c", whole)
    adapter = adapter_of(plan)
    with pytest.raises(Crash):
        trained(plan, data, tmp_path / "d", CrashAfter(moment))
    outcome = trained(plan.changed(resume=True), data, tmp_path / "d", rest)
    done = outcome.resumed_from or 0
    assert rest.losses() == whole.losses()[done:]
    assert adapter_of(plan) == adapter
    assert (outcome.status, outcome.best_step, outcome.eval_loss) == (
        expected.status, expected.best_step, expected.eval_loss,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("moment", [2, 6, 11, 17, 20])
def test_a_killed_run_loses_at_most_the_steps_since_its_last_checkpoint(
    moment: int, plan: Plan, data: Data, tmp_path: Path
) -> None:
    trained(plan, data, tmp_path / "c")
    adapter = adapter_of(plan)

    class KillAfter(CrashAfter):
        def __call__(self, event: Event) -> None:
            try:
                super().__call__(event)
            except Crash:
                os.kill(os.getpid(), signal.SIGKILL)

    process = multiprocessing.get_context("fork").Process(
        target=trained, args=(plan, data, tmp_path / "d", KillAfter(moment))
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    last = max([0, *(e["step"] for e in _events_before(moment, plan, data, tmp_path))])
    outcome = trained(plan.changed(resume=True), data, tmp_path / "d")
    assert last - (outcome.resumed_from or 0) <= 2
    assert adapter_of(plan) == adapter


def _events_before(moment: int, plan: Plan, data: Data, tmp_path: Path) -> list[dict[str, Any]]:
    events = Events()
    trained(plan, data, tmp_path / "again", events)
    return [fields for kind, fields in events.all[:moment] if kind == "step"]


def test_cancelling_stops_within_a_step_and_can_be_resumed(
    plan: Plan, data: Data, tmp_path: Path, events: Events
) -> None:
    whole, rest = Events(), Events()
    trained(plan, data, tmp_path / "c", whole)
    adapter = adapter_of(plan)
    checkpoints = Checkpoints(tmp_path / "d")
    outcome = run_engine(plan, data, events, lambda: len(events.of("step")) >= 5, checkpoints)
    assert (outcome.status, outcome.steps) == ("cancelled", 5)
    assert checkpoints.newest_good()[0] == 5
    resumed = trained(plan.changed(resume=True), data, tmp_path / "d", rest)
    assert (resumed.status, resumed.resumed_from) == ("completed", 5)
    assert events.losses() + rest.losses() == whole.losses()
    assert adapter_of(plan) == adapter


def test_cancelling_during_an_evaluation_repeats_it_after_the_resume(
    plan: Plan, data: Data, tmp_path: Path, events: Events
) -> None:
    # The evaluation before and steps 1 to 3 ask once each; the fifth question is the next evaluation's.
    answers = iter([False, False, False, False, True])
    outcome = run_engine(plan, data, events, lambda: next(answers), Checkpoints(tmp_path / "d"))
    assert (outcome.status, outcome.steps) == ("cancelled", 3)
    assert [e["step"] for e in events.of("eval")] == [0]
    rest = Events()
    trained(plan.changed(resume=True), data, tmp_path / "d", rest)
    assert [e["step"] for e in rest.of("eval")] == [3, 6, 9, 12]


def test_resuming_a_finished_run_only_writes_its_adapter_again(
    plan: Plan, data: Data, tmp_path: Path, events: Events
) -> None:
    trained(plan, data, tmp_path / "c")
    adapter = adapter_of(plan)
    outcome = trained(plan.changed(resume=True), data, tmp_path / "c", events)
    assert (outcome.status, outcome.resumed_from, events.of("step")) == ("completed", 12, [])
    assert adapter_of(plan) == adapter


def told_by(events: Events) -> list[str]:
    return [phase["message"] for phase in events.of("phase") if phase["phase"] == "training"]


def test_resuming_says_from_where(plan: Plan, data: Data, tmp_path: Path, events: Events) -> None:
    first, resumed = Events(), plan.changed(resume=True)
    trained(resumed, data, tmp_path / "c", first)
    assert told_by(first)[1] == "resuming from the first step, since there is no checkpoint"
    trained(resumed, data, tmp_path / "c", events)
    assert told_by(events)[1] == "resuming after step 12"


def test_an_evaluation_tells_that_it_goes_on_and_how_far_it_is(
    plan: Plan, data: Data, tmp_path: Path, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backpropagate.training.events.REPORT_EVERY_S", 0)
    trained(plan.changed(micro_batch_tokens=24, steps=3), data, tmp_path / "c", events)
    assert told_by(events) == [
        "training", "evaluating the model as it is", "evaluating the model as it is: 1 of 2 parts",
        "training", "evaluating", "evaluating: 1 of 2 parts",
    ]  # fmt: skip


def test_resuming_from_a_damaged_checkpoint_says_so(
    plan: Plan, data: Data, tmp_path: Path, events: Events
) -> None:
    trained(plan, data, tmp_path / "c")
    adapter = adapter_of(plan)
    (tmp_path / "c" / "step-000012" / "optimizer.safetensors").write_bytes(b"")
    outcome = trained(plan.changed(resume=True), data, tmp_path / "c", events)
    assert outcome.resumed_from == 10
    assert "step 12 is damaged" in outcome.warnings[0]
    assert adapter_of(plan) == adapter


def test_resuming_with_other_data_is_refused(plan: Plan, data: Data, tmp_path: Path) -> None:
    trained(plan, data, tmp_path / "c")
    with pytest.raises(InputError, match="other examples"):
        trained(plan.changed(resume=True), Data(data.train[1:], data.held_out), tmp_path / "c")


# --- Early stopping.


def test_early_stopping_keeps_the_best_adapter(
    plan: Plan, data: Data, tmp_path: Path, events: Events
) -> None:
    wild = plan.changed(learning_rate=0.3, lr_scheduler="constant", patience=2, steps=40)
    outcome = trained(wild, data, tmp_path / "c", events)
    losses = {e["step"]: e["loss"] for e in events.of("eval")}
    assert outcome.status == "early_stopped"
    assert outcome.best_step == min(losses, key=losses.__getitem__)
    assert outcome.steps == outcome.best_step + 2 * 3
    assert outcome.eval_loss == losses[outcome.best_step]
    step = load_packed_step(wild.changed(continue_from=wild.adapter))
    step.refresh()
    checked = Events()
    fit(step, wild.changed(steps=1, learning_rate=0.0), data, checked, never, Checkpoints(tmp_path / "d"))
    assert checked.of("eval")[0]["loss"] == pytest.approx(outcome.eval_loss, rel=1e-6)


# --- Out of memory.


class SmallMemory(PackedStep):
    """A step with room for so many tokens at once."""

    room = 30
    error: type[BaseException] = torch.OutOfMemoryError
    attempts: list[int]

    def forward_backward(self, batch: PackedBatch, weight: torch.Tensor, *, seed: int) -> torch.Tensor:
        self.attempts.append(batch.useful_tokens)
        loss = super().forward_backward(batch, weight, seed=seed)
        if batch.useful_tokens > self.room:
            raise self.error("out of memory: tried to allocate 3 GiB")
        return loss


def small(plan: Plan, room: int, error: type[BaseException] = torch.OutOfMemoryError) -> SmallMemory:
    step = SmallMemory(load_packed_step(plan).decoder, plan)
    step.room, step.error, step.attempts = room, error, []
    return step


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError, RuntimeError])
def test_a_step_that_runs_out_of_memory_is_done_again_in_smaller_parts(
    error: type[BaseException], plan: Plan, data: Data, tmp_path: Path, events: Events
) -> None:
    plan = plan.changed(lora=LoraGroup(r=4, alpha=8))
    undisturbed = Events()
    trained(plan, data, tmp_path / "c", undisturbed)
    step = small(plan, 40, error)
    outcome = fit(step, plan, data, events, never, Checkpoints(tmp_path / "d"))
    assert outcome.status == "completed"
    assert 1 <= len(outcome.recoveries) <= 3
    assert events.losses() == pytest.approx(undisturbed.losses(), rel=1e-5)
    warning = events.of("warning")[0]["message"]
    assert "ran out of memory" in warning and "micro_batch_tokens=" in warning
    longest = max(len(example.input_ids) for example in data.train)
    assert max(step.attempts[-12:]) <= max(longest, outcome.recoveries[-1].micro_batch_tokens)


def test_what_was_learned_about_memory_survives_a_resume(plan: Plan, data: Data, tmp_path: Path) -> None:
    events, checkpoints = Events(), Checkpoints(tmp_path / "d")
    first = fit(small(plan, 40), plan, data, events, lambda: len(events.of("step")) >= 5, checkpoints)
    step = small(plan, 40)
    second = fit(step, plan.changed(resume=True), data, Events(), never, checkpoints)
    assert first.recoveries and second.recoveries[: len(first.recoveries)] == first.recoveries
    assert step.attempts[0] <= first.recoveries[-1].micro_batch_tokens


def test_too_little_memory_for_one_example_is_said(plan: Plan, data: Data, tmp_path: Path) -> None:
    with pytest.raises(GpuOutOfMemoryError, match="does not fit into memory"):
        fit(small(plan, 3), plan, data, Events(), never, Checkpoints(tmp_path / "d"))


def test_another_error_is_not_taken_for_missing_memory(plan: Plan, data: Data, tmp_path: Path) -> None:
    step = small(plan, 0, ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        fit(step, plan, data, Events(), never, Checkpoints(tmp_path / "d"))


# --- What cannot be trained.


def test_a_loss_that_is_no_number_ends_the_run(plan: Plan, data: Data, tmp_path: Path) -> None:
    step = load_packed_step(plan)
    step.decoder.final_norm.fill_(float("nan"))
    with pytest.raises(TrainingError, match="loss of step 1 is nan"):
        fit(step, plan, data, Events(), never, Checkpoints(tmp_path / "d"))


def test_a_gradient_that_is_not_finite_ends_the_run_before_it_is_saved(
    plan: Plan, data: Data, tmp_path: Path, events: Events
) -> None:
    class Exploding(PackedStep):
        def forward_backward(self, batch: PackedBatch, weight: torch.Tensor, *, seed: int) -> torch.Tensor:
            loss = super().forward_backward(batch, weight, seed=seed)
            if len(events.of("step")) == 3:
                self.lora.gradients[0] = float("inf")
            return loss

    step = Exploding(load_packed_step(plan).decoder, plan)
    checkpoints = Checkpoints(tmp_path / "d")
    with pytest.raises(TrainingError, match="norm of step 4 is inf"):
        fit(step, plan, data, events, never, checkpoints)
    assert checkpoints.newest_good()[0] == 2


def test_no_examples_is_an_error(plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no examples"):
        trained(plan, Data([]), tmp_path / "c")


def test_examples_without_labels_change_nothing(plan: Plan, tmp_path: Path, events: Events) -> None:
    empty: list[Example] = [Example([5, 6, 7], [-100] * 3)] * 4
    outcome = trained(plan.changed(steps=2), Data(empty), tmp_path / "c", events)
    assert outcome.status == "completed" and events.losses() == [0.0, 0.0]
