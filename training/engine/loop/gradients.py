"""The loss and the gradients of one optimizer step, over all ranks.

Each rank has a share of the step's examples, and takes the mean over the label tokens of all of them: so loss
and gradients are, up to rounding, those of one process.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..lora_parameters import seed_of
from ..out_of_memory import first_line, ran_out_of_memory
from ..parallel.ranks import Ranks, Shortage, agreed_shortage
from .prefetch import StepBatch
from .step import TrainingStep


class StepGradients(NamedTuple):
    """The loss of a step, a scalar on the device; its gradients are in the buffer of rank 0.

    Args:
        tokens: of all ranks, without fill.
    """

    loss: Tensor
    tokens: int


def take_values(step: TrainingStep, ranks: Ranks) -> None:
    """The LoRA values of rank 0, in every rank."""
    ranks.spread(step.lora.values)
    if ranks.rank:
        step.refresh()


def step_gradients(
    step: TrainingStep, batch: StepBatch, ranks: Ranks, *, seed: int, index: int
) -> StepGradients | Shortage:
    """Compute this rank's share of a step, and add up all of them.

    Args:
        batch: this rank's share.
        seed: the run's; that of a micro-batch follows from it.
        index: the number of the step.

    Returns:
        The shortage if memory ran out on any rank; then the buffer is to be cleared.
    """
    take_values(step, ranks)
    counts = ranks.exchange(batch.label_tokens, batch.tokens, len(batch.parts))
    labels, tokens, _ = (sum(column) for column in zip(*counts, strict=True))
    most = max(parts for _, _, parts in counts)
    loss = torch.zeros((), device=step.device)
    said = None
    try:
        with step.passes(most, backward=True):
            _accumulate(step, batch, ranks, loss, weight=1 / max(1, labels), seed=seed, index=index)
    except (RuntimeError, MemoryError) as error:
        if not ran_out_of_memory(error):
            raise
        said = first_line(error)
    if (short := agreed_shortage(ranks, said, *batch.largest)) is not None:
        return short
    ranks.reduce(step.lora.gradients)
    ranks.reduce(loss)
    return StepGradients(loss, tokens)


def _accumulate(
    step: TrainingStep,
    batch: StepBatch,
    ranks: Ranks,
    loss: Tensor,
    *,
    weight: float,
    seed: int,
    index: int,
) -> None:
    scale = torch.full((), weight, device=step.device)
    for number, part in enumerate(batch.parts):
        if part.label_tokens:
            own = number * ranks.size + ranks.rank  # no two parts of a step have the same masks
            part_seed = seed_of("dropout", seed, index, own)
            loss += step.forward_backward(part.to(step.device), scale, seed=part_seed)
