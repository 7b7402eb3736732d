"""Write a trained model as a file or folder, and give it to Ollama."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import Response

from ...tools.follow import submitted
from ...tools.register_ollama import register_ollama
from ...training.config.specs import ExportSpec, RegisterSpec
from ...training.errors import BackpropagateError, InputError
from ...training.requests.export import export_spec
from ..desk import desk_of
from ..forms import by_name, group_fields, values_of
from ..look import clean, page, to_run
from ..sources import trained_runs

FIELDS = ("format", "quantization", "imatrix")
OF_OLLAMA = ("name", "system", "question", "keep_template", "overwrite")
FORMATS = ("gguf", "merged", "lora")


async def show(
    request: Request, held: Mapping[str, str], error: BackpropagateError | None = None
) -> Response:
    """The forms; an address with a source fills them in."""
    desk = desk_of(request)
    return page(
        request,
        "export.html",
        error=error,
        fields=by_name(group_fields(ExportSpec, FIELDS, held)),
        ollama=by_name(group_fields(RegisterSpec, OF_OLLAMA, held)),
        held={name: held.get(name, "") for name in ("source", "gguf", "output")},
        sources=clean(await trained_runs(desk.service)),
        exports=clean(await trained_runs(desk.service, kinds=("export",))),
    )


async def submit(request: Request, form: Mapping[str, str]) -> Response:
    """Start the export."""
    desk = desk_of(request)
    values = values_of(form, group_fields(ExportSpec, FIELDS, form))
    source = form.get("source", "").strip()
    if not source:
        raise InputError("There is nothing to export.", hint="Choose a training run.")
    format = values.get("format", "gguf")
    if format not in FORMATS:
        raise InputError("format is none of gguf, merged and lora.", hint="Choose one of them.")

    def make() -> ExportSpec:
        return export_spec(
            source,
            desk.service.store,
            desk.paths,
            format=format,
            quantization=values.get("quantization"),
            imatrix=values.get("imatrix", False),
            allow_other_base=form.get("allow_other_base") == "on",
            output=desk.output_of(form),
        )

    spec = await anyio.to_thread.run_sync(make)
    started = await submitted(desk.context(), spec, confirmed=form.get("confirmed") == "on")
    return to_run(started.run_id, same=bool(started.existing))


async def register(request: Request, form: Mapping[str, str]) -> Response:
    """Give a GGUF file to the Ollama server of this machine."""
    desk = desk_of(request)
    values: dict[str, Any] = values_of(form, group_fields(RegisterSpec, OF_OLLAMA, form))
    source, name = form.get("gguf", "").strip(), values.pop("name", "")
    if not source or not name:
        raise InputError("A GGUF export and a name are needed.", hint="Give both.")
    is_path = source.endswith(".gguf")
    started = await register_ollama(
        desk.context(),
        name,
        path=source if is_path else None,
        run_id=None if is_path else source,
        wait_s=0,
        **values,
    )
    return to_run(started.run_id)
