"""Telling how far a long stage is: which tensor of how many, how fast, and how long it will take."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..errors import TrainingAbortedError

REPORT_EVERY_S = 0.5


class StageProgress:
    """Reports a stage's progress twice a second, and stops it when that is asked for.

    Args:
        what: the stage, as people read it.
        tensors: how many there are.
        total_bytes: of all their values, as `step` counts them.
        report: takes a sentence and the share that is done, 0 to 1.
        should_stop: asked at each step.
    """

    def __init__(
        self,
        what: str,
        tensors: int,
        total_bytes: int,
        report: Callable[[str, float | None], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self._what = what
        self._tensors = tensors
        self._total = max(total_bytes, 1)
        self._report = report
        self._should_stop = should_stop
        self._started = self._told = time.monotonic()
        report(f"{what}: {tensors} tensors", 0.0)

    def step(self, tensor: int, name: str, done_bytes: int) -> None:
        """A part of tensor number `tensor` is done, and `done_bytes` in all.

        Raises:
            TrainingAbortedError: the stage is to stop.
        """
        if self._should_stop():
            raise TrainingAbortedError(f"Cancelled while {self._what}; nothing was kept.")
        now = time.monotonic()
        if now - self._told < REPORT_EVERY_S and done_bytes < self._total:
            return
        self._told = now
        speed = done_bytes / max(now - self._started, 1e-3)
        left = (self._total - done_bytes) / speed
        place = f"tensor {tensor + 1} of {self._tensors}"
        self._report(
            f"{self._what}: {place} · {speed / 1e6:.0f} MB/s · {left:.0f}s left", done_bytes / self._total
        )
