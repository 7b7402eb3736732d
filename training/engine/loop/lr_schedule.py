"""The learning rate of each optimizer step, as transformers' schedules have it."""

from __future__ import annotations

import math

from ..plan import Plan

USUAL_WARMUP, SHARE_OF_STEPS = 5, 10


def warmup_steps(plan: Plan, total: int) -> int:
    """As asked for; else 5, but no more than a tenth of all steps, or short runs would hardly learn."""
    asked = plan.training
    if asked.warmup_ratio is not None:
        return math.ceil(asked.warmup_ratio * total)
    return min(USUAL_WARMUP, total // SHARE_OF_STEPS) if asked.warmup_steps is None else asked.warmup_steps


def learning_rate(plan: Plan, step: int, total: int) -> float:
    """The rate for step `step`, counted from 0, of `total`: up from 0 over the warm-up, then as scheduled.

    constant stays at the peak; linear falls to 0; cosine falls to 0 along half a wave (Loshchilov & Hutter
    2017, arXiv:1608.03983).
    """
    peak, schedule = plan.learning_rate, plan.training.lr_scheduler
    warmup = warmup_steps(plan, total)
    if step < warmup:
        return peak * step / warmup
    done = (step - warmup) / max(1, total - warmup)
    if schedule == "constant":
        return peak
    if schedule == "linear":
        return peak * max(0.0, 1 - done)
    return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
