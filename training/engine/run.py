"""The one door to every engine: open the model, train it."""

from __future__ import annotations

from ..events import Report, ShouldStop
from .loop.checkpoints import Checkpoints
from .open_model import open_model
from .plan import Data, Outcome, Plan


def run_engine(
    plan: Plan, data: Data, report: Report, should_stop: ShouldStop, checkpoints: Checkpoints
) -> Outcome:
    """Train as planned with the plan's engine.

    Raises:
        GpuOutOfMemoryError: a step does not fit into memory.
        TrainingError: a loss or a gradient is not finite.
        ModelLoadError, InputError, DiskFullError: as the engines say.
    """
    return open_model(plan, report).train(data, report, should_stop, checkpoints)
