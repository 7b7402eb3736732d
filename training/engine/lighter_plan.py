"""The same training in less memory, once smaller parts do not help: slower, with the same result."""

from __future__ import annotations

from dataclasses import replace

from ..events import Warned
from .out_of_memory import Doing
from .plan import Plan


def lighter_plan(plan: Plan, doing: Doing) -> Plan | None:
    """The next plan to try after memory ran out; None if nothing is left.

    First activations are computed again, then weights stream from host memory: each once.
    """
    training = plan.training
    if not training.oom_recovery:
        return None
    if doing == "training" and training.recompute in _lighter_modes(plan):
        return plan.changed(recompute="everything")
    can_stream = training.engine == "packed" and plan.device == "cuda" and training.weights_place != "gpu"
    if can_stream and plan.resident_layers != 0:
        return replace(plan, resident_layers=0)
    return None


def _lighter_modes(plan: Plan) -> tuple[str, ...]:
    """What can be replaced by computing everything again."""
    modes = {"packed": ("nothing", "gate_up"), "autograd": ("nothing",)}
    return modes.get(plan.training.engine, ())


def said_of(message: str, before: Plan, after: Plan) -> Warned:
    """What is told of the change.

    Args:
        message: the error's.
    """
    setting, what = "weights=host", "all layers' weights stream from host memory"
    if before.training.recompute != after.training.recompute:
        setting, what = "recompute=everything", "activations are computed again instead of kept"
    told = f"{message} From here on {what}: slower, with the same result. Next time set {setting}."
    return Warned(message=told)
