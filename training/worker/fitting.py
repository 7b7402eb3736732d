"""Refuses a training that cannot fit this machine, before anything of its model is downloaded."""

from __future__ import annotations

from contextlib import suppress

from ..config.specs import TrainingSpec
from ..errors import GpuMonitoringError, ModelLoadError
from ..planning.fits import require_fit
from ..planning.machine import machine_for
from ..planning.model_facts import model_facts
from ..runs.kinds import gpus_of
from .context import RunContext


def require_room(context: RunContext, spec: TrainingSpec) -> None:
    """Looks at config.json only: that of a folder, or the Hub's.

    Raises:
        GpuOutOfMemoryError: no setting fits, with what would.
    """
    with suppress(ModelLoadError, GpuMonitoringError):  # the loading says so
        facts = model_facts(spec.model, context.home / "models", ask_hub=True)
        require_fit(spec, facts, machine_for(spec.training.device, "largest", gpus=gpus_of(spec)))
