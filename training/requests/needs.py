"""What a run would need, by its plan and by earlier runs, for the limits that the user has set."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from itertools import islice
from typing import NamedTuple

from ..config.results import InspectResult, TrainingResult
from ..config.settings import LimitSettings
from ..config.specs import AnySpec, DataGroup, ExportSpec, InspectSpec, MultiRunSpec, TrainingSpec, TrainSpec
from ..config.training_plan import TrainingPlan
from ..errors import BackpropagateError
from ..planning.data_facts import NOTHING, DataFacts, facts_of
from ..planning.disk import QUANTISED, WIDEST, written_gb
from ..planning.machine import machine_for
from ..planning.model_facts import model_facts
from ..planning.plan_training import plan_training
from ..runs.cluster_job import cluster_of
from ..runs.folder import RunState, Status
from ..runs.identity import same_host
from ..runs.kinds import gpus_of
from ..runs.store import RunStore
from ..untrusted import shown_path

LOOKED_AT = 200  # runs


class Needs(NamedTuple):
    """What a run would need; None where that is not known.

    Args:
        disk_gb: of new files, a download included.
        gpu_gib: of each GPU; 0 on the CPU.
    """

    hours: float | None
    disk_gb: float | None
    gpu_gib: float | None

    def beyond(self, limits: LimitSettings) -> list[str]:
        """What exceeds a limit, or may, as parts of a sentence."""
        asked = (
            (self.hours, limits.hours, "hours", "of time"),
            (self.disk_gb, limits.disk_gb, "GB", "of disk space"),
            (self.gpu_gib, limits.gpu_memory_gib, "GiB", "of GPU memory"),
        )
        return [
            f"{_amount(need, unit)} {of} (limit: {limit:g} {unit})"
            for need, limit, unit, of in asked
            if limit is not None and (need is None or need > limit)
        ]


def _amount(need: float | None, unit: str) -> str:
    return "an unknown amount" if need is None else f"about {need:.2g} {unit}"


def needs_of(spec: AnySpec, store: RunStore) -> Needs:
    """What a training, multi-run or export would need; nothing for other runs."""
    if isinstance(spec, ExportSpec):
        return Needs(0, _export_gb(spec, store), 0)
    if not isinstance(spec, TrainingSpec):
        return Needs(0, 0, 0)
    if cluster_of(spec) is not None:  # nothing is known of its nodes
        return Needs(None, None, None)
    plan = _plan(spec, store)
    if plan is None:
        return Needs(_hours(spec, store), None, None)
    hours = _hours(spec, store)
    if hours is None and plan.hours is not None:
        hours = plan.hours * (spec.num_runs if isinstance(spec, MultiRunSpec) else 1)
    on_gpu = plan.settings["precision"] == "bf16"
    return Needs(hours, written_gb(plan.disk_gb), plan.peak_gib if on_gpu else 0.0)


def _plan(spec: TrainingSpec, store: RunStore) -> TrainingPlan | None:
    """The plan, as far as it can be made without waiting for anything."""
    with suppress(BackpropagateError, OSError):
        data = inspected(spec.data, store)
        machine = machine_for(spec.training.device, gpus=gpus_of(spec))
        return plan_training(spec, store, machine, data, ask_hub=False)
    return None


def inspected(data: DataGroup, store: RunStore) -> DataFacts:
    """The examples of a dataset, if it has been inspected."""
    for run, state in islice(store.newest(Status.COMPLETED), LOOKED_AT):
        if isinstance(state, RunState) and isinstance(state.result, InspectResult):
            with suppress(BackpropagateError):
                spec = run.spec()
                if isinstance(spec, InspectSpec) and spec.data == data:
                    return facts_of(state.result, data)
    return NOTHING


def _export_gb(spec: ExportSpec, store: RunStore) -> float | None:
    with suppress(BackpropagateError, OSError):
        facts = model_facts(spec.model, store.home / "models", ask_hub=False)
        if facts is not None:
            size = QUANTISED.get(spec.quantization, WIDEST) if spec.format == "gguf" else 2.0
            return (facts.shape.parameters * size + facts.download) / 1e9
    return None


def _hours(spec: TrainingSpec, store: RunStore) -> float | None:
    """By the newest training of the same model on this machine; without steps it is not known."""
    steps = _steps(spec)
    if steps is None:
        return None
    for _, state in islice(store.newest(Status.COMPLETED), LOOKED_AT):
        if isinstance(state, RunState) and state.subject == spec.subject and same_host(state.host):
            seconds = _seconds_per_step(state)
            if seconds is not None:
                return seconds * steps / 3600
    return None


def _steps(spec: TrainingSpec) -> int | None:
    if isinstance(spec, TrainSpec):
        return spec.training.steps
    if isinstance(spec, MultiRunSpec) and spec.multi.steps_per_run:
        return spec.multi.steps_per_run * (len(spec.tasks) or spec.multi.num_runs or 1)
    return None


def _seconds_per_step(state: RunState) -> float | None:
    result = state.result
    if not isinstance(result, TrainingResult) or not result.steps:
        return None
    if state.started_at is None or state.ended_at is None:
        return None
    spent = datetime.fromisoformat(state.ended_at) - datetime.fromisoformat(state.started_at)
    return spent.total_seconds() / result.steps


def question(spec: AnySpec, beyond: list[str]) -> str:
    """Whether to start a run that needs this."""
    return f"Start this run ({spec.kind} of {shown_path(spec.subject)})? It would take {', '.join(beyond)}."
