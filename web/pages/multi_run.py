"""Start a multi-run: a dataset in parts, or several datasets one after the other."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from ...tools.multi_run import multi_run
from ...training.config.arguments import explain
from ...training.config.specs import MultiGroup, Task
from ...training.errors import BackpropagateError, InputError
from ...training.requests.multi_run import named_tasks
from ..desk import desk_of
from ..forms import by_name, group_fields, setting_fields
from ..look import page, to_run
from .train import asked, more_fields

USUAL = ("dataset", "model", "load_in_4bit", "learning_rate", "lora_r", "lora_alpha")
OWN = tuple(MultiGroup.model_fields)


async def show(
    request: Request, held: Mapping[str, str], error: BackpropagateError | None = None
) -> Response:
    """The form; an address with settings fills it in."""
    desk = desk_of(request)
    return page(
        request,
        "multi_run.html",
        error=error,
        fields=by_name(setting_fields(USUAL, desk.service.settings, held)),
        own=group_fields(MultiGroup, OWN, held),
        more=more_fields(desk.service.settings, held, USUAL),
        held={name: held.get(name, "") for name in ("tasks", "continue_from", "output")},
    )


async def submit(request: Request, form: Mapping[str, str]) -> Response:
    """Start the multi-run, or show the equal one that there is."""
    desk = desk_of(request)
    started = await multi_run(
        desk.context(),
        **asked(desk, form, group_fields(MultiGroup, OWN, form)),
        tasks=tasks_of(form.get("tasks", "")),
        continue_from=form.get("continue_from", "").strip() or None,
        new_run=form.get("new_run") == "on",
        confirmed=form.get("confirmed") == "on",
        wait_s=0,
    )
    return to_run(started.run_id, same=bool(started.note))


def tasks_of(text: str) -> list[Task] | None:
    """One task a line: a dataset, or `name = dataset`."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    given: list[object] = []
    for line in lines:
        name, found, dataset = line.partition(" = ")
        given.append({"name": name.strip(), "dataset": dataset.strip()} if found else line)
    try:
        return [Task(**task) for task in named_tasks(given)] or None
    except ValidationError as error:
        raise InputError(f"tasks: {explain(error)}", hint="Write “name = dataset”.") from None
