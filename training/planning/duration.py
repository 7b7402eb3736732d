"""How long a whole run takes: starting, loading, evaluating, its steps, and judging what it has learnt."""

from __future__ import annotations

from typing import Literal

from .measured import Estimate

START_S = {"cuda": 25.0, "cpu": 8.0}
"""To import libraries and to compile the first step; a 7B on an H100 took 35 s with its evaluation."""
LOADED_PER_S = 1e9
"""Bytes of weights that are read from a disk."""
EVALUATED = 1 / 3
"""Time of a token that is evaluated, before and after, to one that is trained on."""
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
) -> float:
    """Seconds of a run.

    Args:
        tokens: that are trained on, in all steps.
        held_out: tokens of the held-out examples.
        rate: tokens per second of the steps.
        stored: bytes of the weights.
        beside: what an earlier run of the model took beside its steps.
    """
    steps = tokens / rate
    if beside is not None:
        return steps + beside.value
    evaluating = 2 * EVALUATED * held_out / rate
    judging = max(1.0, JUDGED * steps) if held_out else 0.0
    return START_S[device] + stored / LOADED_PER_S + evaluating + steps + judging
