"""The steps of a plan: the examples of each, how many there are, and how well they are packed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...config.results import PackingStatistics
from ...planning.duration import evaluations
from ...planning.step_order import StepOrder, even_shares, micro_batches
from ..plan import Data, Plan


def step_order(plan: Plan, lengths: Sequence[int]) -> StepOrder:
    """The order of a plan's steps; accumulation counts towards a step's examples."""
    return StepOrder(
        lengths,
        seed=plan.training.seed,
        batch_size=plan.batch_size * plan.training.gradient_accumulation_steps,
        tokens_per_step=plan.tokens_per_step,
        shuffle=plan.data.order == "shuffled",
    )


def is_worth_evaluating_before(data: Data, order: StepOrder, steps: int) -> bool:
    """Whether evaluating the held-out examples takes little of the time of training; see `evaluations`."""
    held_out = sum(len(example.input_ids) for example in data.held_out)
    trained = sum(order.lengths) * steps / order.steps_per_epoch
    return evaluations(trained, held_out) > 1


def total_steps(plan: Plan, order: StepOrder) -> int:
    """The optimizer steps of a run: `steps`, or `epochs` times those of an epoch, rounded up."""
    return plan.training.steps or math.ceil(plan.epochs * order.steps_per_epoch)


def statistics(order: StepOrder, budget: int, ranks: int = 1, border: int | None = None) -> PackingStatistics:
    """How all ranks pack the first epoch of `order` into micro-batches of at most `budget` tokens.

    Args:
        border: as for `micro_batches`.
    """
    parts = 0
    padded = 0
    for step in range(order.steps_per_epoch):
        lengths = [order.lengths[i] for i in order.examples(step)]
        for share in even_shares(lengths, ranks):
            parts += len(micro_batches([lengths[i] for i in share], budget, border))
        padded += max(lengths) * len(lengths)
    tokens = sum(order.lengths)
    return PackingStatistics(
        examples=len(order.lengths),
        tokens=tokens,
        longest=max(order.lengths),
        steps_per_epoch=order.steps_per_epoch,
        micro_batches_per_epoch=parts,
        fill=tokens / (parts * budget),
        padding_avoided=1 - tokens / padded,
    )
