"""The mean loss on held-out examples, over all ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from ...data.tokens.example import Example
from ...events import ShouldStop, never_stop
from ...planning.step_order import even_shares
from ..out_of_memory import first_line, ran_out_of_memory
from ..parallel.ranks import Ranks, Shortage, agreed_shortage
from .gradients import take_values
from .prefetch import StepBatch, in_parts
from .step import TrainingStep


def held_out_batch(step: TrainingStep, examples: Sequence[Example], budget: int, ranks: Ranks) -> StepBatch:
    """This rank's share of the held-out examples, in parts of at most `budget` tokens."""
    lengths = [len(example.input_ids) for example in examples]
    mine = [examples[i] for i in even_shares(lengths, ranks.size)[ranks.rank]]
    return in_parts(mine, budget, step.row_multiple, step.device.type == "cuda", step.row_border)


def held_out_loss(
    step: TrainingStep,
    batch: StepBatch,
    ranks: Ranks,
    should_stop: ShouldStop = never_stop,
    at: Callable[[int, int], None] = lambda done, parts: None,
) -> float | Shortage | None:
    """Mean cross-entropy per label token; None if told to stop.

    Args:
        batch: this rank's share of the held-out examples.
        should_stop: asked of rank 0 before each part, on behalf of all.
        at: called before each part with the number of those that are done, and of all.

    Returns:
        The shortage if memory ran out on any rank.
    """
    take_values(step, ranks)
    counts = ranks.exchange(batch.label_tokens, len(batch.parts))
    labels, most = sum(labels for labels, _ in counts), max(parts for _, parts in counts)
    total = torch.zeros((), device=step.device)
    for number in range(most):
        at(number, most)
        stop = ranks.rank == 0 and should_stop()
        if any(told for (told,) in ranks.exchange(stop)):
            return None
        with step.passes(1, backward=False):
            said = _add_part(step, batch, number, total)
        if (short := agreed_shortage(ranks, said, *batch.largest)) is not None:
            return short
    ranks.reduce(total)
    return float(total) / max(1, labels)


def _add_part(step: TrainingStep, batch: StepBatch, number: int, total: torch.Tensor) -> str | None:
    """Add the losses of a part, if there is one; what was said if memory ran out."""
    if number >= len(batch.parts) or not batch.parts[number].label_tokens:
        return None
    try:
        total += step.loss(batch.parts[number].to(step.device))
    except (RuntimeError, MemoryError) as error:
        if not ran_out_of_memory(error):
            raise
        return first_line(error)
    return None
