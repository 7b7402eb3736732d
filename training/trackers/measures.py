"""Events and results as the numbers of an experiment tracker.

The names are those of transformers' integrations, so that runs of both stand side by side.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from ..config.results import AnyResult, MultiRunResult, TrainingResult
from ..events import Evaluated, Event, Step

Value = float | str


class Point(NamedTuple):
    """Numbers of one moment.

    Args:
        step: optimizer steps since the start of the run; of a multi-run, over all its runs.
        t: seconds since 1970.
        values: name → number.
    """

    step: int
    t: float
    values: dict[str, float]


class Measures:
    """The points of the events of one run, which have to come in their order, from the first one on."""

    def __init__(self) -> None:
        self.step = 0
        self._run = 1
        self._before = 0  # steps of the earlier runs of a multi-run

    def point(self, event: Event) -> Point | None:
        """The point of an event; None if it has no numbers."""
        match event:
            case Step():
                self._count(event)
                named = {
                    "train/loss": event.loss,
                    "train/learning_rate": event.learning_rate,
                    "train/grad_norm": event.grad_norm,
                    "train/tokens_per_second": event.tokens_per_s,
                    "train/run": event.run,
                }
                step = self.step
            case Evaluated():
                named = {"eval/loss": event.loss, "eval/perplexity": event.perplexity}
                # That before a later run of a multi-run comes before the first step of this run.
                step = max(self.step, self._before + event.step)
            case _:
                return None
        values = {name: float(value) for name, value in named.items() if value is not None}
        return Point(step, datetime.fromisoformat(event.t).timestamp(), values)

    def _count(self, event: Step) -> None:
        """Steps are numbered from 1 in each run of a multi-run."""
        if event.run is not None and event.run > self._run:
            self._run, self._before = event.run, self.step
        self.step = self._before + event.step


def summary_of(result: AnyResult | None, error_code: str | None) -> dict[str, Value]:
    """What a tracker is told of a run's end."""
    found: dict[str, Any] = {"error": error_code}
    if isinstance(result, TrainingResult):
        found |= {
            "train_loss": result.final_loss,
            "eval_loss": result.eval_loss,
            "eval_loss_before": result.eval_loss_before,
            "steps": result.steps,
            "tokens_per_second": result.tokens_per_s,
            "peak_memory_mib": result.peak_memory_mib,
            "trained_token_share": result.trained_token_share,
            "verdict": result.verdict.verdict if result.verdict else None,
            "engine": result.engine,
            "device": result.device,
        }
    if isinstance(result, MultiRunResult):
        found |= {"average": result.average, "backward_transfer": result.backward_transfer}
    return {f"final/{name}": value for name, value in found.items() if value not in (None, "")}
