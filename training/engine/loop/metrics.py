"""Events of steps and evaluations. Steps are read from the device in groups: each reading waits for it."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from ...errors import TrainingError
from ...events import Evaluated, Report, ShouldStop, Step
from ..plan import Plan


@dataclass(frozen=True)
class _Taken:
    step: int
    learning_rate: float
    loss: Tensor
    grad_norm: Tensor
    tokens: int


class StepMetrics:
    """Reports each step with its loss, learning rate, gradient norm, speed and the time left."""

    def __init__(self, report: Report, plan: Plan, total_steps: int, device: torch.device) -> None:
        self.report = report
        self.total_steps = total_steps
        default = 0.5 if device.type == "cuda" else 0.0
        self.interval = default if plan.report_every_s is None else plan.report_every_s
        self.last_loss: float | None = None
        self.tokens = 0
        self.seconds = 0.0
        self._waiting: list[_Taken] = []
        self._since = time.perf_counter()
        self._recent: deque[tuple[int, int, float]] = deque(maxlen=32)  # steps, tokens, seconds

    def add(self, step: int, learning_rate: float, loss: Tensor, grad_norm: Tensor, tokens: int) -> None:
        """Note a finished step, counted from 1; report what waits if it is time."""
        self._waiting.append(_Taken(step, learning_rate, loss, grad_norm, tokens))
        if time.perf_counter() - self._since >= self.interval:
            self.flush()

    def flush(self) -> None:
        """Report all steps that wait.

        Raises:
            TrainingError: a loss or a gradient's norm is not finite; its step is in no checkpoint.
        """
        if not self._waiting:
            return
        # One transfer for all of them: it waits until the device has done them.
        pairs = torch.stack([torch.stack((t.loss, t.grad_norm)) for t in self._waiting])
        numbers = cast("list[list[float]]", pairs.tolist())  # pyright: ignore[reportUnknownMemberType]
        self._measure()
        steps = sum(taken for taken, _, _ in self._recent)
        seconds = max(sum(spent for _, _, spent in self._recent), 1e-9)
        for taken, pair in zip(self._waiting, numbers, strict=True):
            loss, grad_norm = pair
            self._check(taken.step, "loss", loss)
            self._check(taken.step, "gradient's norm", grad_norm)
            self.last_loss = loss
            self.report(
                Step(
                    step=taken.step,
                    total_steps=self.total_steps,
                    loss=loss,
                    learning_rate=taken.learning_rate,
                    grad_norm=grad_norm,
                    tokens_per_s=sum(tokens for _, tokens, _ in self._recent) / seconds,
                    eta_s=(self.total_steps - taken.step) * seconds / steps,
                )
            )
        self._waiting.clear()

    def leave_out(self, seconds: float) -> None:
        """So much of the time since the last flush was not spent on training."""
        self._since += seconds

    def restart_clock(self) -> None:
        """Training continues: the time since the last flush was not spent on it."""
        self._since = time.perf_counter()

    def _measure(self) -> None:
        now = time.perf_counter()
        tokens = sum(taken.tokens for taken in self._waiting)
        self._recent.append((len(self._waiting), tokens, now - self._since))
        self.tokens += tokens
        self.seconds += now - self._since
        self._since = now

    def _check(self, step: int, what: str, number: float) -> None:
        if not math.isfinite(number):
            raise TrainingError(
                f"The {what} of step {step} is {number}.",
                hint="Lower learning_rate; the last checkpoint is from before this step.",
            )


class StepClock:
    """Speed and time left for engines whose loop is another library's.

    Taken from the steps so far; the first one (warm-up) does not count if there are others.
    """

    def __init__(self, total_steps: int) -> None:
        self._total = total_steps
        self._start = time.perf_counter()
        self._first: tuple[float, int, int] | None = None

    def leave_out(self, seconds: float) -> None:
        """So much time was not spent on training."""
        self._start += seconds

    def tick(self, step: int, tokens: int) -> tuple[float, float]:
        """Tokens per second, and seconds left, after `step`, when `tokens` have been trained on in all."""
        elapsed = time.perf_counter() - self._start
        first_elapsed, first_step, first_tokens = self._first or (0.0, 0, 0)
        if self._first is None:
            self._first = (elapsed, step, tokens)
        span = max(elapsed - first_elapsed, 1e-9)
        per_step = span / max(step - first_step, 1)
        return round((tokens - first_tokens) / span, 1), round(per_step * (self._total - step), 1)


def timed(should_stop: ShouldStop) -> tuple[bool, float]:
    """The answer, and the seconds that it took: it comes late while the GPU is too hot."""
    asked = time.perf_counter()
    return should_stop(), time.perf_counter() - asked


def evaluated(step: int, loss: float) -> Evaluated:
    """The event of an evaluation after `step`; the perplexity is e^loss, at most e^700."""
    return Evaluated(step=step, loss=loss, perplexity=math.exp(min(loss, 700.0)))
