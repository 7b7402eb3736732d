"""A plan's model, loaded once, whichever engine trains it."""

from __future__ import annotations

import torch

from ..config.fields import EngineName
from ..errors import GpuOutOfMemoryError
from ..events import Phase, Report, ShouldStop, Warned
from ..untrusted import shown_path
from .lighter_plan import lighter_plan, said_of
from .loaded_model import DelegatingModel, LoadedModel, UnavailableError
from .loop.checkpoints import Checkpoints
from .out_of_memory import empty_cache, memory_errors
from .parallel.ranks import ALONE, Ranks
from .plan import Data, Outcome, Plan
from .select_engine import select_engine


def open_model(plan: Plan, report: Report, ranks: Ranks = ALONE) -> LoadedModel:
    """Load the plan's base with a new adapter, or the one that it continues from.

    Args:
        ranks: the processes that share its first training; our own engines only.

    Raises:
        ModelLoadError: the model cannot be loaded.
        InputError: the adapter to continue from does not fit, or a target module does not exist.
        GpuOutOfMemoryError: it does not fit into memory.
    """
    set_up(plan)
    if plan.training.engine == "unsloth":
        return _WithFallback(plan, report)
    report(Phase(phase="loading", message=f"loading {shown_path(plan.model.name)}"))
    while True:
        try:
            with memory_errors(plan, "loading"):
                return _opened(plan, report, ranks)
        except GpuOutOfMemoryError as error:
            lighter = lighter_plan(plan, "loading")
            if lighter is None:
                raise
            report(said_of(error.message, plan, lighter))
        plan = lighter
        empty_cache(plan.device)


def set_up(plan: Plan) -> None:
    """What holds for the whole process."""
    if plan.training.threads:
        torch.set_num_threads(plan.training.threads)
    if plan.device == "cuda":
        # It builds a plan for each new shape of batch, which costs more than it saves.
        torch.backends.cuda.enable_cudnn_sdp(False)


def _opened(plan: Plan, report: Report, ranks: Ranks = ALONE) -> LoadedModel:
    if plan.training.engine == "packed":
        from .packed.engine import open_packed

        return open_packed(plan, report, ranks)
    if plan.training.weights in ("host", "sharded"):
        asked, name = plan.training.weights, plan.training.engine
        report(Warned(message=f"weights={asked} is not used: only our packed engine streams, not {name}."))
    match plan.training.engine:
        case "autograd":
            from .autograd.engine import open_autograd

            return open_autograd(plan, report, ranks)
        case "trl":
            from .trl.engine import open_trl as open_it
        case "unsloth":
            from .unsloth.engine import open_unsloth as open_it
        case "auto":
            raise ValueError("the plan has no engine")
    return open_it(plan, report)


class _WithFallback(DelegatingModel):
    """Another library's engine; once it says that it is unavailable, our own takes its place."""

    def __init__(self, plan: Plan, report: Report) -> None:
        self._plan = plan
        self._name: EngineName = plan.training.engine
        self._model = _opened(plan, report)

    def train(self, data: Data, report: Report, should_stop: ShouldStop, checkpoints: Checkpoints) -> Outcome:
        try:
            return self._model.train(data, report, should_stop, checkpoints)
        except UnavailableError as obstacle:
            report(Warned(message=f"Our own engine trains instead of {self._name.title()}: {obstacle}."))
            plan = _with_our_engine(self._plan, f"{self._name} was asked for, but {obstacle}")
        self._model = open_model(plan, report)
        return self._model.train(data, report, should_stop, checkpoints)

    def inner(self) -> LoadedModel:
        return self._model


def _with_our_engine(plan: Plan, reason: str) -> Plan:
    engine, _ = select_engine(
        plan.model, plan.lora, load_in_4bit=plan.load_in_4bit, max_seq_length=plan.data.max_seq_length
    )
    return plan.changed(engine=engine, reason=reason)
