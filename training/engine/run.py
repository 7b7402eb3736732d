"""The one door to every engine."""

from __future__ import annotations

import torch

from ..events import Report, ShouldStop
from .loop.checkpoints import Checkpoints
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
    if plan.training.threads:
        torch.set_num_threads(plan.training.threads)
    if plan.device == "cuda":
        # It builds a plan for each new shape of batch, which costs more than it saves.
        torch.backends.cuda.enable_cudnn_sdp(False)
    match plan.training.engine:
        case "packed":
            from .packed.engine import run
        case "autograd":
            from .autograd.engine import run
        case "trl":
            from .trl.engine import run
        case "unsloth":
            from .unsloth.engine import run
        case "auto":
            raise ValueError("the plan has no engine")
    return run(plan, data, report, should_stop, checkpoints)
