"""plan_train: how a training would run, before anything is downloaded or trained."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import anyio.to_thread
from pydantic import Field

from ..training.config.results import InspectResult
from ..training.config.specs import TrainSpec
from ..training.config.training_plan import TrainingPlan
from ..training.errors import from_record
from ..training.requests.plan import inspection_of, is_of_the_model, probe_of
from ..training.requests.settings import alias_notes
from ..training.runs.folder import ENDED
from .context import ToolContext, ToolResult, as_lines
from .follow import WaitSeconds, follow, follow_or_raise
from .train import train_spec_of
from .wording import words

AS_FOR_TRAIN = Field(description="As for train.")
"""Assistants know `train`: its descriptions, and its bounds, are not told twice."""


class PlannedTraining(ToolResult):
    """The plan, with the next step as a call.

    Args:
        probe: the run that measured it, if a probe was asked for.
    """

    plan: TrainingPlan
    probe: str | None = None
    notes: list[str]
    next: str

    def text(self) -> str:
        return as_lines([*plan_lines(self.plan), *self.notes, f"Next: {self.next}"])


async def plan_train(
    context: ToolContext,
    dataset: Annotated[str | list[str] | None, AS_FOR_TRAIN] = None,
    model: Annotated[str | None, AS_FOR_TRAIN] = None,
    steps: Annotated[int | None, AS_FOR_TRAIN] = None,
    epochs: Annotated[float | None, AS_FOR_TRAIN] = None,
    samples: Annotated[int | None, AS_FOR_TRAIN] = None,
    on_bad_rows: Annotated[str | None, AS_FOR_TRAIN] = None,
    dedupe: Annotated[str | None, AS_FOR_TRAIN] = None,
    batch_size: Annotated[int | str | None, AS_FOR_TRAIN] = None,
    learning_rate: Annotated[float | str | None, AS_FOR_TRAIN] = None,
    max_seq_length: Annotated[int | None, AS_FOR_TRAIN] = None,
    lora_r: Annotated[int | None, AS_FOR_TRAIN] = None,
    lora_alpha: Annotated[int | None, AS_FOR_TRAIN] = None,
    load_in_4bit: Annotated[bool | None, AS_FOR_TRAIN] = None,
    seed: Annotated[int | None, AS_FOR_TRAIN] = None,
    questions: Annotated[list[str] | None, AS_FOR_TRAIN] = None,
    output: Annotated[str | None, AS_FOR_TRAIN] = None,
    settings: Annotated[dict[str, Any] | None, AS_FOR_TRAIN] = None,
    probe: Annotated[
        bool, Field(description="Also load the model, if it is here, and time a few steps (about 30 s).")
    ] = False,
    wait_s: WaitSeconds = 50,
) -> PlannedTraining:
    """Plan a training without starting it: whether it fits, settings with reasons, memory, time, disk, and
    what else would fit. The arguments are those of `train`; without load_in_4bit the plan decides on it.
    Weights are not downloaded.
    """
    arguments = {
        "dataset": dataset, "model": model, "steps": steps, "epochs": epochs, "samples": samples,
        "on_bad_rows": on_bad_rows, "dedupe": dedupe, "batch_size": batch_size,
        "learning_rate": learning_rate, "max_seq_length": max_seq_length, "lora_r": lora_r,
        "lora_alpha": lora_alpha, "load_in_4bit": load_in_4bit, "seed": seed, "questions": questions,
        "output": output,
    }  # fmt: skip
    make = partial(train_spec_of, context, settings, arguments, planned=True)
    spec = await anyio.to_thread.run_sync(make)
    inspected, notes = await _inspected(context, spec, wait_s)
    plan = await context.service.plan(spec, inspected)
    run_id = None
    if probe and plan.possible:
        run_id, told = await _probed(context, spec, plan, wait_s)
        notes += told
        plan = await context.service.plan(spec, inspected)
    return PlannedTraining(
        plan=plan, probe=run_id, notes=[*alias_notes(settings), *notes], next=words(plan.next)
    )


async def _inspected(
    context: ToolContext, spec: TrainSpec, wait_s: float
) -> tuple[InspectResult | None, list[str]]:
    """What an inspection says of the dataset; a note if it is still running.

    Raises:
        DatasetError: the dataset cannot be read.
    """
    request = inspection_of(spec)
    if request is None:
        return None, []
    submission = await context.service.submit(request, find_equal=True)
    view = await follow(context, submission.run_id, wait_s)
    if view.error and is_of_the_model(view.error):
        return None, [f"The dataset was not read: {view.error.message}"]
    if view.error:
        raise from_record(view.error)
    if isinstance(view.result, InspectResult):
        return view.result, []
    return None, ["The dataset is still being inspected: call plan_train again for better numbers."]


async def _probed(
    context: ToolContext, spec: TrainSpec, plan: TrainingPlan, wait_s: float
) -> tuple[str | None, list[str]]:
    if plan.disk_gb["download"]:
        return None, ["No probe: the model has to be downloaded first, which a probe does not do."]
    submission = await context.service.submit(probe_of(spec, plan), find_equal=True)
    view = await follow_or_raise(context, submission, wait_s)
    if view.status in ENDED:
        return view.run_id, []
    return view.run_id, [f"Probe {view.run_id} is still running: call plan_train again without probe."]


def plan_lines(plan: TrainingPlan) -> list[str]:
    """A plan for an assistant or a person, one fact a line."""
    verdict = "It fits." if plan.fits else f"It does not fit: {plan.why_not}"
    speed = "not known" if plan.tokens_per_s is None else f"{plan.tokens_per_s:,.0f} tokens/s"
    time = "" if plan.hours is None else f", {_time(plan.hours)} in all"
    memory = ", ".join(f"{name} {gib:g}" for name, gib in plan.memory_gib.items() if gib >= 0.01)
    disk = ", ".join(f"{name} {size:.3g}" for name, size in plan.disk_gb.items() if size >= 0.001)
    settings = ", ".join(f"{name} {value}" for name, value in plan.settings.items() if value is not None)
    return [
        verdict,
        f"Model: {plan.model}, {plan.billions:.3g} billion weights ({plan.model_from}).",
        f"Device: {plan.device}.",
        f"Data: {plan.data}",
        f"Settings: {settings}.",
        *(f"- {name}: {why}" for name, why in plan.reasons.items()),
        f"Memory: peak {plan.peak_gib:.2f} of {plan.free_gib:.2f} GiB free ({plan.peak_from}): {memory}.",
        f"Speed: {speed}{time} ({plan.speed_from}).",
        f"Disk, GB: {disk or 'next to nothing'}.",
        f"Would fit here: {'; '.join(plan.would_fit)}.",
        *plan.notes,
    ]


def _time(hours: float) -> str:
    if hours < 1 / 60:
        return f"{hours * 3600:.0f} s"
    return f"{hours * 60:.0f} min" if hours < 2 else f"{hours:.1f} h"
