"""Events of steps and evaluations.

On a GPU the host hands out steps ahead of what is computed. Their numbers are read in groups, and all but the
newest while the GPU computes that one: it would stand idle until the next step comes if it were waited for.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import TrainingError
from ...events import Evaluated, Phase, Report, ShouldStop, Step, throttled
from ..plan import Plan

LONG_STEP_S = 1.0
"""A step that takes longer is waited for: the GPU idles little then, and it ends sooner if told to."""


@dataclass(frozen=True)
class _Taken:
    step: int
    learning_rate: float
    numbers: Tensor  # (2,), loss and gradient's norm, in main memory once `there`
    there: torch.cuda.Event | None
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
        """Note a step, counted from 1, that is given to the device; report what waits if it is time."""
        numbers, there = torch.stack((loss, grad_norm)), None
        if numbers.is_cuda:
            numbers, there = numbers.to("cpu", non_blocking=True), torch.cuda.Event()
            there.record()
        self._waiting.append(_Taken(step, learning_rate, numbers, there, tokens))
        if time.perf_counter() - self._since >= self.interval:
            self._report(len(self._waiting) - self._is_ahead())

    def flush(self) -> None:
        """Report all steps that wait.

        Raises:
            TrainingError: a loss or a gradient's norm is not finite; its step is in no checkpoint.
        """
        self._report(len(self._waiting))

    def _is_ahead(self) -> bool:
        """Whether the newest step is left to the device."""
        steps, seconds = self._spent()
        return self._waiting[-1].there is not None and seconds < LONG_STEP_S * steps

    def _spent(self) -> tuple[int, float]:
        """The last steps, and the seconds that they took."""
        return sum(steps for steps, _, _ in self._recent), sum(spent for _, _, spent in self._recent)

    def _report(self, count: int) -> None:
        """The first steps of those that wait."""
        if not count:
            return
        done, self._waiting = self._waiting[:count], self._waiting[count:]
        if done[-1].there is not None:
            done[-1].there.synchronize()
        self._measure(done)
        steps, seconds = self._spent()
        seconds = max(seconds, 1e-9)
        for taken in done:
            loss, grad_norm = map(float, taken.numbers)
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

    def leave_out(self, seconds: float) -> None:
        """So much of the time since the last flush was not spent on training."""
        self._since += seconds

    def restart_clock(self) -> None:
        """Training continues: the time since the last flush was not spent on it."""
        self._since = time.perf_counter()

    def _measure(self, done: list[_Taken]) -> None:
        now = time.perf_counter()
        tokens = sum(taken.tokens for taken in done)
        self._recent.append((len(done), tokens, now - self._since))
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


def evaluation_progress(report: Report, doing: str, what: str) -> Callable[[int, int], None]:
    """Tells how far an evaluation is, when it is called with how much is done, and of how much.

    Args:
        doing: what users are told that the training does meanwhile.
        what: is counted.
    """
    report = throttled(report)

    def at(done: int, total: int) -> None:
        more = f": {done} of {total} {what}" if done else ""
        report(Phase(phase="training", message=f"{doing}{more}", fraction=done / total if done else None))

    return at


def evaluated(step: int, loss: float) -> Evaluated:
    """The event of an evaluation after `step`; the perplexity is e^loss, at most e^700."""
    return Evaluated(step=step, loss=loss, perplexity=math.exp(min(loss, 700.0)))
