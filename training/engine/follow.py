"""What the ranks beside the run's worker do: load what they are told, and compute their share of each step.

They decide nothing and write nothing: see `parallel/`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .device import peak_memory_mib
from .load_together import loaded_in_all
from .loop.gradients import step_gradients
from .loop.held_out_loss import held_out_batch, held_out_loss
from .loop.packing import step_order
from .loop.prefetch import Prefetcher
from .loop.step import TrainingStep
from .open_model import set_up
from .out_of_memory import empty_cache
from .parallel.orders import Order
from .parallel.ranks import Hears, Ranks, Shortage
from .plan import Data, Plan


def follow(ranks: Hears, data_of: Callable[[Plan], Data]) -> None:
    """Do what rank 0 says until it says that this is the end.

    Args:
        data_of: the examples of a plan.

    Raises:
        RunInterruptedError: rank 0 is gone.
    """
    model: _Loaded | None = None
    while (told := ranks.hear()).order is not Order.END:
        if told.order is Order.LOAD:
            model = None  # its memory is needed
            model = _load(Plan.from_record(json.loads(told.text)), ranks, data_of)
        elif model is None:
            raise AssertionError(f"{told.order.name} before a model was loaded")
        elif told.order is Order.TRAIN:
            model.train(told.first, told.second)
        elif told.order is Order.PASS:
            model.give_shards()
        elif told.order is Order.MEASURE:
            ranks.exchange(peak_memory_mib())
        else:
            model.evaluate(told.first)


def _load(plan: Plan, ranks: Hears, data_of: Callable[[Plan], Data]) -> _Loaded | None:
    """None if memory ran out: then rank 0 orders something lighter, or ends."""
    set_up(plan)
    empty_cache(plan.device)
    try:
        step = loaded_in_all(lambda: _load_step(plan, ranks), ranks)
    except MemoryError:
        return None
    return _Loaded.of(step, plan, data_of(plan), ranks)


def _load_step(plan: Plan, ranks: Ranks) -> Any:
    if plan.training.engine == "packed":
        from .packed.engine import load_packed_step as load
    else:
        from .autograd.engine import load_autograd_step as load
    return load(plan, ranks)


@dataclass(frozen=True)
class _Loaded:
    """A model, and this rank's share of the examples."""

    step: TrainingStep
    plan: Plan
    data: Data
    prefetcher: Prefetcher
    ranks: Hears

    @classmethod
    def of(cls, step: TrainingStep, plan: Plan, data: Data, ranks: Hears) -> _Loaded:
        on_cuda = step.device.type == "cuda"
        prefetcher = Prefetcher(
            data.train,
            step_order(plan, [len(example.input_ids) for example in data.train]),
            budget=plan.micro_batch_tokens,
            multiple=step.row_multiple,
            pinned=on_cuda,
            ahead=on_cuda,
            border=step.row_border,
            rank=ranks.rank,
            size=ranks.size,
        )
        return cls(step, plan, data, prefetcher, ranks)

    def train(self, index: int, budget: int) -> None:
        self.prefetcher.budget = budget
        batch = self.prefetcher.step(index)
        seed = self.plan.training.seed
        found = step_gradients(self.step, batch, self.ranks, seed=seed, index=index)
        self._after(found)

    def evaluate(self, budget: int) -> None:
        batch = held_out_batch(self.step, self.data.held_out, budget, self.ranks)
        self._after(held_out_loss(self.step, batch, self.ranks))

    def give_shards(self) -> None:
        with self.step.passes(1, backward=False):
            pass  # nothing to compute here

    def _after(self, found: object) -> None:
        self.step.lora.gradients.zero_()
        if isinstance(found, Shortage):
            self.step.release()
            empty_cache(self.step.device.type)
