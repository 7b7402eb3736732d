"""Start a training: the usual settings first, all others below."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ...tools.plan_train import PlannedTraining, plan_lines, plan_train
from ...tools.train import train
from ...training.config.settings import Settings
from ...training.errors import BackpropagateError
from ..desk import Desk, desk_of
from ..forms import FormField, all_names, by_name, setting_fields, values_of
from ..live import unfinished
from ..look import clean, page, to_run

USUAL = (
    "dataset",
    "model",
    "steps",
    "epochs",
    "learning_rate",
    "batch_size",
    "max_seq_length",
    "lora_r",
    "lora_alpha",
    "lora_dropout",
    "lora_target_modules",
    "load_in_4bit",
    "questions",
    "report_to",
)
GROUPS = {
    "Data": ("data",),
    "Model and LoRA": ("model", "lora"),
    "Training": ("training",),
    "Evaluation": ("evaluation",),
}
"""Where the other settings stand."""
PLAN_S = 8.0  # for the inspection of the dataset, which is done but once


async def show(
    request: Request,
    held: Mapping[str, str],
    error: BackpropagateError | None = None,
    planned: PlannedTraining | None = None,
) -> Response:
    """The form; an address with settings fills it in."""
    desk = desk_of(request)
    return page(
        request,
        "train.html",
        error=error,
        fields=by_name(setting_fields(USUAL, desk.service.settings, held)),
        more=more_fields(desk.service.settings, held),
        output=held.get("output", ""),
        queue=clean(await unfinished(desk.service)),
        plan=clean([*plan_lines(planned.plan), *planned.notes]) if planned else [],
        fits=bool(planned and planned.plan.fits),
    )


async def submit(request: Request, form: Mapping[str, str]) -> Response:
    """Start the training, or show the equal one that there is."""
    desk = desk_of(request)
    started = await train(
        desk.context(),
        **asked(desk, form),
        new_run=form.get("new_run") == "on",
        confirmed=form.get("confirmed") == "on",
        wait_s=0,
    )
    return to_run(started.run_id, same=bool(started.note))


async def plan(request: Request, form: Mapping[str, str]) -> Response:
    """Show how the training would run: whether it fits, what it takes, and why each setting is as it is."""
    desk = desk_of(request)
    planned = await plan_train(desk.context(), **asked(desk, form), wait_s=PLAN_S)
    return await show(request, form, planned=planned)


def asked(desk: Desk, form: Mapping[str, str], own: Iterable[FormField] = ()) -> dict[str, Any]:
    """What the form says, as the tools take it.

    Args:
        own: fields of the page that no other has, whose values are settings too.
    """
    settings = values_of(form, [*setting_fields(all_names(), desk.service.settings, form), *own])
    dataset, model = settings.pop("dataset", []), settings.pop("model", None)
    return {
        "dataset": one_or_all(dataset),
        "model": model,
        "output": desk.output_of(form),
        "settings": settings or None,
    }


def more_fields(
    defaults: Settings, given: Mapping[str, str], without: Collection[str] = USUAL
) -> dict[str, list[FormField]]:
    """The settings that are not among the usual ones, by heading."""
    return {
        title: setting_fields([name for name in all_names(*groups) if name not in without], defaults, given)
        for title, groups in GROUPS.items()
    }


def one_or_all(lines: list[str]) -> str | list[str] | None:
    """One dataset as a text, several as a list."""
    return lines[0] if len(lines) == 1 else lines or None
