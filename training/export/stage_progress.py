"""Progress of a long stage: which tensor of how many, how fast, and the estimated time left."""

from __future__ import annotations

import time

from ..errors import TrainingAbortedError
from ..events import Phase, Report, ShouldStop, throttled


class StageProgress:
    """Reports a stage's progress, and stops the stage when that is asked for.

    Args:
        phase: a key of `PHASES`.
        stage: what is being done, as people read it.
        tensors: how many there are.
        total_bytes: of all their values, as `step` counts them.
        should_stop: looked at in each step.
    """

    def __init__(
        self,
        phase: str,
        stage: str,
        tensors: int,
        total_bytes: int,
        report: Report,
        should_stop: ShouldStop,
    ) -> None:
        self._phase = phase
        self._stage = stage
        self._tensors = tensors
        self._total = max(total_bytes, 1)
        self._report = throttled(report)
        self._should_stop = should_stop
        self._started = time.monotonic()
        self._report(Phase(phase=phase, message=f"{stage}: {tensors} tensors", fraction=0.0))

    def step(self, tensor: int, name: str, done_bytes: int) -> None:
        """A part of tensor number `tensor` is done, and `done_bytes` in all.

        Raises:
            TrainingAbortedError: the stage is to stop.
        """
        if self._should_stop():
            raise TrainingAbortedError(f"Cancelled while {self._stage}; nothing was kept.")
        speed = done_bytes / max(time.monotonic() - self._started, 1e-3)  # bytes per second
        left = (self._total - done_bytes) / speed
        place = f"tensor {tensor + 1} of {self._tensors}"
        message = f"{self._stage}: {place} · {speed / 1e6:.0f} MB/s · {left:.0f}s left"
        self._report(Phase(phase=self._phase, message=message, fraction=done_bytes / self._total))
