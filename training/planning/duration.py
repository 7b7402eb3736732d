"""How long a whole run takes: starting, loading, evaluating, its steps, and judging what it has learnt."""

from __future__ import annotations

from typing import Literal

from ..data.split.held_out import MIN_HELD_OUT
from .measured import Estimate

START_S = {"cuda": 20.0, "cpu": 8.0}
"""To import libraries and to compile the first step; with a 7B on an H200 18 s the first time, then 9."""
LOADED_PER_S = 1e9
"""Bytes of weights that are read from a disk."""
EVALUATED = 1 / 3
"""Time of a token that is evaluated to one that is trained on."""
JUDGED = 0.1
"""Share of the steps' time that the verdict may take; it may always take a second."""


def seconds_of(
    device: Literal["cpu", "cuda"],
    *,
    tokens: float,
    held_out: float,
    rate: float,
    stored: int,
    beside: Estimate | None,
    launching: float = 0.0,
) -> float:
    """Seconds of a run.

    Args:
        tokens: that are trained on, in all steps.
        held_out: tokens of the held-out examples.
        rate: tokens per second of the steps.
        stored: bytes of the weights.
        beside: what an earlier run of the model took beside its steps.
        launching: seconds in which kernels are launched one by one, until there are CUDA graphs.
    """
    steps = tokens / rate
    if beside is not None:
        return steps + beside.value
    evaluating = evaluations(tokens, held_out) * EVALUATED * held_out / rate
    judging = max(1.0, JUDGED * steps) if held_out else 0.0
    starting = START_S[device] + stored / LOADED_PER_S
    return starting + evaluating + launching + steps + judging


def evaluations(trained: float, held_out: float) -> int:
    """How often the held-out examples are evaluated: at the end, and before where that takes at most about a
    tenth of the steps' time.

    Args:
        trained: tokens of all steps, those of each epoch.
        held_out: tokens of the held-out examples.
    """
    return 0 if not held_out else 2 if held_out <= EVALUATED * trained else 1


def long_evaluation(trained: int, held_out: int, rows: int) -> list[str]:
    """What is said where the held-out rows take longer than the steps, if fewer could be held out.

    Args:
        trained: examples of all steps, those of each epoch.
        held_out: examples that are evaluated.
        rows: examples, trained on or held out.
    """
    enough = max(MIN_HELD_OUT, round(EVALUATED * trained))
    if EVALUATED * held_out <= trained or enough >= held_out:
        return []
    return [
        f"Evaluating {held_out:,} held-out rows at the end takes longer than the steps: "
        f"held_out={enough / rows:.2g} holds out {enough}."
    ]
