"""`backprop plan`."""

from __future__ import annotations

from typing import Any

import anyio
import click

from ..tools.plan_train import plan_lines
from ..training.config.results import InspectResult
from ..training.config.specs import InspectSpec, ProbeSpec, TrainSpec
from ..training.config.training_plan import TrainingPlan
from ..training.errors import from_record
from ..training.requests.plan import inspection_of, is_of_the_model, probe_of
from ..training.runs.view import RunView
from ..training.service import TrainingService
from .follow import follow, follow_or_cancel
from .options import given, setting_options
from .train import spec_of
from .wording import as_options, words
from .wrapped import say, say_json


@click.command("plan")
@setting_options()
@click.option("--output", metavar="FOLDER", help="Where the training would copy its adapter.")
@click.option("--probe", is_flag=True, help="Also load the model, if it is here, and time a few steps.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def plan(ctx: click.Context, probe: bool, as_json: bool, **values: Any) -> None:
    """Show how a training would run, without starting it: whether it fits, memory, time, and why."""
    service = TrainingService()
    spec = spec_of(service, given(values), planned=True)
    made, notes = anyio.run(_planned, service, spec, probe)
    if as_json:
        say_json(made.model_dump_json(indent=1))
    else:
        for line in [*plan_lines(made), *notes]:
            say(as_options(line), 2)
        say(f"Next: {words(made.next)}", 6)
    ctx.exit(0 if made.fits else 1)


async def _planned(service: TrainingService, spec: TrainSpec, probe: bool) -> tuple[TrainingPlan, list[str]]:
    request, inspected, notes = inspection_of(spec), None, list[str]()
    if request is not None:
        view = await _ended(service, request)
        inspected = view.result if isinstance(view.result, InspectResult) else None
        if view.error and is_of_the_model(view.error):
            notes.append(f"The dataset was not read: {view.error.message}")
        elif view.error:
            raise from_record(view.error)
    made = await service.plan(spec, inspected)
    if not probe or not made.possible:
        return made, notes
    if made.disk_gb["download"]:
        return made, [*notes, "No probe: the model has to be downloaded first, which a probe does not do."]
    view = await _ended(service, probe_of(spec, made))
    if view.error:
        raise from_record(view.error)
    return await service.plan(spec, inspected), notes


async def _ended(service: TrainingService, request: InspectSpec | ProbeSpec) -> RunView:
    """The run of a request, when it has ended."""
    submission = await service.submit(request, find_equal=True)
    show = follow if submission.existing else follow_or_cancel
    return await show(service, submission.run_id)
