"""Ask a trained model, and its base beside it."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from ...tools.generate import generate
from ...training.config.specs import GenerateSpec
from ...training.errors import BackpropagateError, InputError
from ..desk import desk_of
from ..forms import by_name, group_fields, values_of
from ..look import clean, page, to_run
from ..sources import trained_runs

FIELDS = ("prompts", "compare_base", "max_new_tokens", "temperature", "seed", "system")


async def show(
    request: Request, held: Mapping[str, str], error: BackpropagateError | None = None
) -> Response:
    """The form; an address with a source fills it in."""
    desk = desk_of(request)
    return page(
        request,
        "ask.html",
        error=error,
        fields=by_name(group_fields(GenerateSpec, FIELDS, held)),
        source=held.get("source", ""),
        sources=clean(await trained_runs(desk.service)),
    )


async def submit(request: Request, form: Mapping[str, str]) -> Response:
    """Ask; the run's page shows the answers side by side."""
    desk = desk_of(request)
    values = values_of(form, group_fields(GenerateSpec, FIELDS, form))
    source = form.get("source", "").strip()
    if not source or not values.get("prompts"):
        raise InputError("A model and a question are needed.", hint="Choose a run and write a question.")
    asked = await generate(desk.context(), source, wait_s=0, **values)
    return to_run(asked.run_id)
