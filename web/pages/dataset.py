"""Look at a dataset: what is in it, what is wrong with it, and which tokens a model learns from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ...tools.inspect_dataset import inspect_dataset
from ...training.config.arguments import flat_name
from ...training.config.results import InspectResult
from ...training.config.specs import DataGroup, InspectSpec
from ...training.errors import BackpropagateError, InputError, from_record
from ...training.runs.folder import ENDED
from ...training.runs.view import RunView
from ..desk import Desk, desk_of
from ..forms import all_names, as_text, by_name, setting_fields, values_of
from ..keep_upload import keep_upload
from ..look import clean, page
from .train import one_or_all

USUAL = ("dataset", "model", "max_seq_length", "train_on", "on_bad_rows")
PREVIEW = 5
WAIT_S = 3.0


async def show(
    request: Request, held: Mapping[str, str], error: BackpropagateError | None = None
) -> Response:
    """The form, and what was found by the inspection that the address names."""
    desk = desk_of(request)
    view = await _inspection(desk, held.get("run", ""))
    if view:
        held = _asked(desk, view)
        error = from_record(view.error) if view.error else error
    settings = desk.service.settings
    more = [name for name in all_names("data") if name not in (*USUAL, "order", "held_out")]
    answer = page(
        request,
        "dataset.html",
        http_status=200 if view else None,
        error=error,
        fields=by_name(setting_fields(USUAL, settings, held)),
        more=setting_fields(more, settings, held),
        held={name: value for name, value in held.items() if name in all_names("data", "model")},
        upload_mib=settings.ui.upload_mib,
        reading=view is not None and view.status not in ENDED,
        phase=clean((view.phase or "starting") if view else ""),
        report=clean(_report(view.result)) if view and isinstance(view.result, InspectResult) else None,
    )
    if view and view.status not in ENDED:
        answer.headers["refresh"] = "1"
    return answer


async def submit(request: Request, form: Mapping[str, str]) -> Response:
    """Inspect, or show the equal inspection that there is."""
    desk = desk_of(request)
    settings = values_of(form, setting_fields(all_names("data", "model"), desk.service.settings, form))
    dataset, model = one_or_all(settings.pop("dataset", [])), settings.pop("model", None)
    if dataset is None:
        raise InputError(
            "There is no dataset.", hint="Give a file, a folder or a Hub dataset, or upload one."
        )
    found = await inspect_dataset(
        desk.context(), dataset, model, preview=PREVIEW, settings=settings or None, wait_s=WAIT_S
    )
    return RedirectResponse(f"/dataset?run={found.run_id}", 303)


async def upload(request: Request, form: Mapping[str, Any]) -> Response:
    """Keep a file in the output folder, and look at it."""
    file = form.get("file")
    if not isinstance(file, UploadFile) or not file.filename:
        raise InputError("There is no file.", hint="Choose a file first.")
    settings = desk_of(request).service.settings
    name = await keep_upload(file, desk_of(request).outputs, settings.ui.upload_mib * 2**20)
    return await submit(request, {"dataset": name, "model": str(form.get("model", "")), "csrf": ""})


async def _inspection(desk: Desk, run_id: str) -> RunView | None:
    view = await desk.service.get(run_id) if run_id else None
    if view and view.kind != "inspect":
        raise InputError("This run is no inspection of a dataset.", hint="Look at it among the runs.")
    return view


def _asked(desk: Desk, view: RunView) -> dict[str, str]:
    """The settings of an inspection, as its form held them."""
    spec = desk.service.store.find(view.run_id).spec()
    assert isinstance(spec, InspectSpec)
    defaults = DataGroup()
    data = {
        flat_name("data", name): as_text(value)
        for name, value in spec.data.model_dump().items()
        if value != getattr(defaults, name)
    }
    return clean({**data, "model": spec.model.name})


def _report(result: InspectResult) -> dict[str, Any]:
    """What was found, with each repair as the settings that it changes."""
    told = result.model_dump(mode="json")
    for found in told["findings"]:
        found["set"] = repair_of(found["repair"] or "")
    return told


def repair_of(text: str) -> dict[str, str] | None:
    """`dedupe="exact"` → the field of a form and its text; None where a person has to choose a value."""
    name, found, value = text.partition("=")
    if not found or "…" in value or name not in all_names("data", "model"):
        return None
    try:
        return {name: as_text(json.loads(value))}
    except ValueError:
        return {name: value}
