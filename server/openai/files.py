"""/v1/files: training data that clients upload, and the results of jobs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from ...training.errors import DatasetNotFoundError
from ...training.files.uploads import Upload
from ...training.runs.loss_curve import LossCurve
from ...training.untrusted import quoted
from .caller import Caller
from .errors import ApiError
from .job_objects import RESULTS, created_at
from .names import job_id, run_of_job
from .pages import Object, limit_of, page, require_known
from .upload import PURPOSE, announced_size, sent_form, uploaded

MOST_LISTED = 10_000
COLUMNS = ("step", "train_loss", "valid_loss")


async def upload_file(request: Request, caller: Caller) -> Response:
    """POST: keep a file of the caller's."""
    await anyio.to_thread.run_sync(caller.uploads.require_room, announced_size(request))
    with caller.uploading.one_of(caller.principal):
        form = await sent_form(request)
        try:
            sent = uploaded(form)
            kept = await anyio.to_thread.run_sync(
                caller.uploads.add, sent.filename, PURPOSE, sent.content, sent.size
            )
        finally:
            await form.close()
    return JSONResponse(_file(kept))


async def list_files(request: Request, caller: Caller) -> Response:
    """GET: the caller's files, newest first."""
    require_known(request, "after", "limit", "order", "purpose")
    limit, asked = limit_of(request, MOST_LISTED, MOST_LISTED), request.query_params
    order = asked.get("order", "desc")
    if order not in ("asc", "desc"):
        raise ApiError(400, f"order: should be asc or desc, not {quoted(order)}.", "invalid_value", "order")
    found = await anyio.to_thread.run_sync(caller.uploads.all)
    files = found if order == "desc" else found[::-1]
    chosen = [file for file in files if asked.get("purpose", file.purpose) == file.purpose]
    return JSONResponse(page(map(_file, _after(asked.get("after"), chosen)), limit))


def _after(after: str | None, files: list[Upload]) -> list[Upload]:
    if after is None:
        return files
    place = next((place for place, file in enumerate(files) if file.id == after), None)
    if place is None:
        raise ApiError(400, f"after: there is no file {quoted(after)}.", "invalid_value", "after")
    return files[place + 1 :]


async def retrieve_file(request: Request, caller: Caller) -> Response:
    """GET: one file."""
    file_id = request.path_params["file_id"]
    if file_id.startswith(RESULTS):
        return JSONResponse(await _results_file(file_id, caller))
    return JSONResponse(_file(await _found(file_id, caller)))


async def file_content(request: Request, caller: Caller) -> Response:
    """GET: the bytes as they came; of the results of a job, a table of its losses."""
    file_id = request.path_params["file_id"]
    if file_id.startswith(RESULTS):
        return Response(await _results(file_id, caller), media_type="text/csv")
    await _found(file_id, caller)
    return FileResponse(caller.uploads.path(file_id), media_type="application/octet-stream")


async def delete_file(request: Request, caller: Caller) -> Response:
    """DELETE: remove a file; jobs that have read it keep what they have made of it."""
    file_id = request.path_params["file_id"]
    await _found(file_id, caller)
    await anyio.to_thread.run_sync(caller.uploads.delete, file_id)
    return JSONResponse({"id": file_id, "object": "file", "deleted": True})


async def _found(file_id: str, caller: Caller) -> Upload:
    try:
        return await anyio.to_thread.run_sync(caller.uploads.get, file_id)
    except DatasetNotFoundError as error:
        raise ApiError(404, error.message, "file_not_found", "file_id") from error


def _file(upload: Upload) -> Object:
    return {"object": "file", "status": "processed", **upload.model_dump()}


# --- The results of a job, made when they are asked for. ---
async def _results_file(file_id: str, caller: Caller) -> Object:
    run_id = file_id.removeprefix(RESULTS)
    content = await _results(file_id, caller)
    view = await caller.service.get(run_id)
    return {
        "id": file_id,
        "object": "file",
        "bytes": len(content),
        "created_at": created_at(view.ended_at or view.created_at),
        "filename": "step_metrics.csv",
        "purpose": "fine-tune-results",
        "status": "processed",
    }


async def _results(file_id: str, caller: Caller) -> bytes:
    run_id = file_id.removeprefix(RESULTS)
    run_of_job(job_id(run_id), caller.service.store)
    curve = await caller.service.curve(run_id)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *_rows(curve)])
    return text.getvalue().encode()


def _rows(curve: LossCurve) -> Iterator[tuple[int, float | str, float | str]]:
    trained = {point.step: point.loss for point in curve.losses}
    held_out = {point.step: point.loss for point in curve.evals}
    for step in sorted({*trained, *held_out}):
        yield step, trained.get(step, ""), held_out.get(step, "")
