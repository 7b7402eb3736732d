"""The losses of a training as a line of text, and as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..training.runs.loss_curve import LossCurve, LossPoint
from .canvas import BLUE, GRID, INK, ORANGE, Canvas, text_width

BARS = "▁▂▃▄▅▆▇█"
WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 32, 40  # pixels around the chart
TICKS = 5
ENOUGH_FOR_A_LINE = 3
"""A line through fewer held-out losses would claim more than was measured."""


def sparkline(losses: Sequence[float]) -> str:
    """The losses as a row of bars, from the lowest to the highest; empty for fewer than two.

    >>> sparkline([3.0, 2.0, 1.5, 1.0])
    '█▅▃▁'
    """
    known = [loss for loss in losses if math.isfinite(loss)]
    if len(known) < 2:
        return ""
    low, span = min(known), max(known) - min(known)
    last = len(BARS) - 1
    return "".join(BARS[round((loss - low) / span * last) if span else 0] for loss in known)


def loss_plot(curve: LossCurve) -> bytes | None:
    """A PNG: a line of training losses, and squares of held-out ones; None before there are any."""
    losses, evals = _finite(curve.losses), _finite(curve.evals)
    if not losses and not evals:
        return None
    chart = _Chart([*losses, *evals])
    for begin in curve.begins[1:]:
        chart.mark(begin)
    chart.draw(losses, BLUE)
    if len(evals) >= ENOUGH_FOR_A_LINE:
        chart.draw(evals, ORANGE, thickness=1)
    for point in evals:
        chart.canvas.square(*chart.place(point), ORANGE)
    chart.name(bool(evals))
    return chart.canvas.png()


class _Chart:
    """The axes of a chart that has room for these points."""

    def __init__(self, points: Sequence[LossPoint]) -> None:
        self.canvas = Canvas(WIDTH, HEIGHT)
        steps, losses = [point.step for point in points], [point.loss for point in points]
        self._x = ticks(min(steps), max(steps))
        self._y = ticks(min(losses), max(losses))
        for value in self._y:
            y = self._down(value)
            self.canvas.rectangle(LEFT, y, WIDTH - LEFT - RIGHT, 1, GRID)
            self.canvas.text(LEFT - 8 - text_width(label(value)), y - 5, label(value))
        for value in self._x:
            name = label(value)
            x = min(self._across(value) - text_width(name) / 2, WIDTH - text_width(name))
            self.canvas.text(x, HEIGHT - BOTTOM + 8, name)

    def place(self, point: LossPoint) -> tuple[float, float]:
        return self._across(point.step), self._down(point.loss)

    def draw(self, points: Sequence[LossPoint], color: int, thickness: int = 2) -> None:
        places = [self.place(point) for point in points]
        self.canvas.line(places if len(places) > 1 else places * 2, color, thickness)

    def mark(self, step: int) -> None:
        """A line where a run of a multi-run begins."""
        self.canvas.rectangle(self._across(step), TOP, 1, HEIGHT - TOP - BOTTOM, INK)

    def name(self, has_evals: bool) -> None:
        """What the line and the squares are."""
        self.canvas.rectangle(LEFT, 14, 24, 2, BLUE)
        self.canvas.text(LEFT + 32, 10, "training loss")
        if has_evals:
            self.canvas.square(LEFT + 196, 15, ORANGE)
            self.canvas.text(LEFT + 210, 10, "held-out loss")
        self.canvas.text(WIDTH - RIGHT - text_width("steps"), HEIGHT - 16, "steps")

    def _across(self, step: float) -> float:
        return LEFT + _share(step, self._x) * (WIDTH - LEFT - RIGHT)

    def _down(self, loss: float) -> float:
        return HEIGHT - BOTTOM - _share(loss, self._y) * (HEIGHT - TOP - BOTTOM)


def ticks(low: float, high: float) -> list[float]:
    """Round numbers in equal distances, from one at or below `low` to one at or above `high`.

    >>> ticks(0.13, 2.9)
    [0.0, 1.0, 2.0, 3.0]
    """
    span = (high - low) or max(abs(high), 1.0)
    size = 10.0 ** math.floor(math.log10(span / TICKS))
    step = next(size * factor for factor in (1, 2, 5, 10, 20) if span / (size * factor) <= TICKS)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [index * step for index in range(first, max(last, first + 1) + 1)]


def label(value: float) -> str:
    """A number in few letters: `1.5k`, `0.25`."""
    for size, name in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{name}"
    return f"{value:.4g}"


def _share(value: float, axis: Sequence[float]) -> float:
    return (value - axis[0]) / (axis[-1] - axis[0])


def _finite(points: Sequence[LossPoint]) -> list[LossPoint]:
    return [point for point in points if math.isfinite(point.loss)]
