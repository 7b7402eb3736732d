"""Whether a run's training loss was still falling at its end."""

from __future__ import annotations

from math import sqrt
from statistics import fmean, variance

from ..events import Step
from ..runs.event_log import read_events
from ..runs.folder import RunFolder

FEWEST_STEPS = 8
"""Of fewer steps nothing is said: the losses of single batches vary."""
SHARE_OF_FIRST = 0.05


def losses_of(run: RunFolder) -> list[float]:
    """The loss of each step, of all attempts; a step that was done again counts once."""
    events, _ = read_events(run.events_path)
    return list({event.step: event.loss for event in events if isinstance(event, Step)}.values())


def still_falling(losses: list[float]) -> bool:
    """Whether the mean loss of the last quarter is below that of the quarter before.

    By at least 5 % of the first quarter's, and by twice the standard error of the difference.
    """
    if len(losses) < FEWEST_STEPS:
        return False
    size = len(losses) // 4
    first, before, last = losses[:size], losses[-2 * size : -size], losses[-size:]
    fall = fmean(before) - fmean(last)
    error = sqrt((variance(before) + variance(last)) / size)
    return fall > max(SHARE_OF_FIRST * fmean(first), 2 * error)
