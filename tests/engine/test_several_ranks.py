"""A training that several processes share equals that of one. Here the processes are threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rank_threads import OnThreads
from rarer import rarer

from backpropagate.training.config.specs import LoraGroup
from backpropagate.training.engine.autograd.engine import load_autograd_step
from backpropagate.training.engine.loop.batch import PackedBatch
from backpropagate.training.engine.loop.checkpoints import Checkpoints
from backpropagate.training.engine.packed.engine import PackedStep, load_packed_step
from backpropagate.training.engine.parallel.orders import Order
from backpropagate.training.engine.parallel.ranks import ALONE, Ranks
from backpropagate.training.engine.plan import Data, Example, Outcome, Plan
from backpropagate.training.engine.run import run_engine
from backpropagate.training.events import never_stop

from .conftest import Events, a_plan, tiny_model

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

LOADING = threading.Lock()


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    tiny_model("llama").save_pretrained(folder)
    return folder


@pytest.fixture
def data(examples: Callable[..., list[Example]]) -> Data:
    lengths = [6 + 7 * i % 25 for i in range(13)]  # the fourth step has one example
    return Data(examples(*lengths, vocab=12), examples(20, 9, 14, seed=9, vocab=12))


@pytest.fixture
def plan(model_folder: Path, tmp_path: Path) -> Plan:
    return a_plan(
        model=model_folder,
        adapter=tmp_path / "adapter",
        lora=LoraGroup(r=4, alpha=8),
        steps=5,
        batch_size=4,
        learning_rate=5e-3,
        eval_every=2,
        threads=1,
    )


def shared(
    size: int,
    plan: Plan,
    data: Data,
    folder: Path,
    events: Events,
    load: Callable[..., Any] = load_packed_step,
    should_stop: Callable[[], bool] = never_stop,
) -> Outcome:
    together = OnThreads(size, plan, data, load, events)
    outcome = together.model.train(data, events, should_stop, Checkpoints(folder))
    together.joined()
    return outcome


def one_at_a_time(plan: Plan, _: Ranks = ALONE) -> Any:
    """While transformers loads a model it replaces functions of its own, for all threads of a process."""
    with LOADING:
        return load_autograd_step(plan)


def alone(plan: Plan, data: Data, folder: Path) -> tuple[Outcome, Events]:
    events = Events()
    return run_engine(plan, data, events, never_stop, Checkpoints(folder)), events


@pytest.mark.parametrize(
    ("engine", "size"),
    [
        ("packed", 3),
        *(rarer(*slow) for slow in (("packed", 6), ("autograd", 2))),
    ],
)
def test_losses_and_evaluations_equal_those_of_one_process(
    engine: str,
    size: int,
    plan: Plan,
    data: Data,
    tmp_path: Path,
    events: Events,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = plan.changed(engine=engine)
    one, told = alone(plan, data, tmp_path / "one")
    load = load_packed_step if engine == "packed" else one_at_a_time
    monkeypatch.setattr("backpropagate.training.engine.autograd.engine.load_autograd_step", one_at_a_time)
    together = shared(size, plan, data, tmp_path / "several", events, load)
    assert events.losses() == pytest.approx(told.losses(), abs=1e-6)
    evaluations = [[event["loss"] for event in of.of("eval")] for of in (told, events)]
    assert evaluations[1] == pytest.approx(evaluations[0], abs=1e-6) and len(evaluations[0]) == 4
    assert together.tokens == one.tokens and together.steps == one.steps
    assert together.eval_loss_before == pytest.approx(one.eval_loss_before, abs=1e-6)


def test_a_run_goes_on_with_another_number_of_processes(
    plan: Plan, data: Data, tmp_path: Path, events: Events
) -> None:
    _, undisturbed = alone(plan, data, tmp_path / "one")

    def after_three() -> bool:
        return len(events.losses()) >= 3

    stopped = shared(3, plan, data, tmp_path / "c", events, should_stop=after_three)
    assert stopped.status == "cancelled" and stopped.steps == 3
    goes_on = plan.changed(resume=True)
    assert shared(2, goes_on, data, tmp_path / "c", events).resumed_from == 3
    assert events.losses() == pytest.approx(undisturbed.losses(), abs=1e-6)


class Small(PackedStep):
    """A step with room for so many tokens at once, and only in the threads of other ranks."""

    def forward_backward(self, batch: PackedBatch, weight: torch.Tensor, *, seed: int) -> torch.Tensor:
        if batch.useful_tokens > 30:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")
        return super().forward_backward(batch, weight, seed=seed)


def test_memory_that_runs_out_on_one_of_them_makes_all_do_the_step_again(
    plan: Plan, data: Data, tmp_path: Path, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, undisturbed = alone(plan, data, tmp_path / "one")

    def small(plan: Plan, ranks: Ranks) -> PackedStep:
        return Small(load_packed_step(plan, ranks).decoder, plan)

    # What the other ranks load; rank 0 gets its own.
    monkeypatch.setattr("backpropagate.training.engine.packed.engine.load_packed_step", small)
    outcome = shared(2, plan.changed(micro_batch_tokens=64), data, tmp_path / "c", events)
    assert outcome.recoveries and outcome.recoveries[-1].micro_batch_tokens <= 30
    assert events.losses() == pytest.approx(undisturbed.losses(), abs=1e-6)


@pytest.mark.slow
def test_a_lighter_plan_is_loaded_by_all(plan: Plan, data: Data, tmp_path: Path, events: Events) -> None:
    """One example that does not fit although nothing is smaller: everything is recomputed, in every rank."""

    class OnlyRecomputing(PackedStep):
        def forward_backward(self, batch: PackedBatch, weight: torch.Tensor, *, seed: int) -> torch.Tensor:
            if self.recompute != "everything":
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().forward_backward(batch, weight, seed=seed)

    def load(plan: Plan, ranks: Ranks) -> PackedStep:
        return OnlyRecomputing(load_packed_step(plan, ranks).decoder, plan)

    _, undisturbed = alone(plan, data, tmp_path / "one")
    together = OnThreads(2, plan, data, load, events)
    outcome = together.model.train(data, events, never_stop, Checkpoints(tmp_path / "c"))
    together.joined()
    heard = together.others[0].heard
    assert heard.count(Order.LOAD) == 2 and heard[-1] is Order.END
    assert outcome.status == "completed"
    assert events.losses() == pytest.approx(undisturbed.losses(), abs=1e-6)


def test_a_model_that_does_not_fit_one_of_them_is_refused_for_all(
    plan: Plan, data: Data, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(plan: Plan, ranks: Ranks) -> PackedStep:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr("backpropagate.training.engine.packed.engine.load_packed_step", no_room)
    with pytest.raises(MemoryError, match="Rank 1 of 2 ran out of memory"):
        OnThreads(2, plan, data, load_packed_step, events)


def test_other_ranks_have_other_dropout_masks(plan: Plan, data: Data, tmp_path: Path, events: Events) -> None:
    plan = plan.changed(lora=LoraGroup(r=4, alpha=8, dropout=0.5))
    _, one = alone(plan, data, tmp_path / "one")
    shared(2, plan, data, tmp_path / "c", events)
    assert events.losses()[0] == pytest.approx(one.losses()[0], abs=1e-6)  # B is zero: nothing to drop
    assert events.losses()[-1] != pytest.approx(one.losses()[-1], abs=1e-6)
