"""/v1/fine_tuning/jobs: a job is a run."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ...tools.context import resolved_model
from ...tools.follow import submitted
from ...training.config.specs import TrainSpec
from ...training.errors import BackpropagateError, DatasetNotFoundError, StateError
from ...training.logs import logger
from ...training.requests.openai_job import JobRequest, job_request, require_supervised
from ...training.requests.train import train_spec
from ...training.runs.folder import ENDED, RunFolder
from .body import json_body
from .caller import Caller
from .errors import ApiError, api_error, not_known
from .job_events import job_events
from .job_objects import STATUSES, checkpoint_object, job_object
from .names import is_training, run_of_job
from .pages import Object, limit_of, page, require_known

USUAL, MOST = 20, 100
USUAL_CHECKPOINTS = 10
KEY_LENGTH = 200  # of an Idempotency-Key
METADATA = "metadata["


async def create_job(request: Request, caller: Caller) -> Response:
    """POST: start a training."""
    asked = job_request(await json_body(request))
    key = request.headers.get("idempotency-key")
    if key is not None and not 0 < len(key) <= KEY_LENGTH:
        raise ApiError(400, f"Idempotency-Key has more than {KEY_LENGTH} characters.", "invalid_value")
    spec = await anyio.to_thread.run_sync(partial(_spec, asked, caller))
    submission = await submitted(caller.context, spec, key, new_run=True, confirmed=False)
    return await _job(request, caller, submission.run_id)


def _spec(asked: JobRequest, caller: Caller) -> TrainSpec:
    require_supervised(asked)
    if asked.integrations:
        raise not_known("integrations", "the server's owner sets them, by the setting report_to.")
    arguments = {
        **asked.settings,
        "dataset": _path(asked.training_file, "training_file", caller),
        "model": _model(asked.model, caller),
    }
    if asked.validation_file is not None:
        arguments["validation"] = _path(asked.validation_file, "validation_file", caller)
    spec = train_spec(caller.service.settings, arguments=arguments, roots=caller.paths.recorded())
    return spec.model_copy(update={"job": asked.record})


def _path(file_id: str, param: str, caller: Caller) -> str:
    try:
        return caller.paths.resolve(str(caller.uploads.path(file_id)), param)
    except DatasetNotFoundError as error:
        raise ApiError(400, f"{param}: {error.message} {error.hint}", "file_not_found", param) from error


def _model(name: str, caller: Caller) -> str:
    try:
        return resolved_model(caller.context, name)
    except BackpropagateError as error:
        found = api_error(error, "model")
        raise ApiError(found.status, found.message, "model_not_found", "model") from error


async def list_jobs(request: Request, caller: Caller) -> Response:
    """GET: the caller's trainings, newest first."""
    wanted = {
        name[len(METADATA) : -1]: value
        for name, value in request.query_params.items()
        if name.startswith(METADATA) and name.endswith("]")
    }
    require_known(request, "after", "limit", *(f"{METADATA}{name}]" for name in wanted))
    limit, after = limit_of(request, USUAL, MOST), request.query_params.get("after")
    found = partial(_jobs, caller, after, wanted)
    return JSONResponse(await anyio.to_thread.run_sync(lambda: page(found(), limit)))


def _jobs(caller: Caller, after: str | None, metadata: dict[str, str]) -> Iterator[Object]:
    store = caller.service.store
    ids = store.ids()
    if after is not None:
        ids = ids[ids.index(run_of_job(after, store).run_id) + 1 :]
    for run_id in ids:
        job = _job_or_none(RunFolder(store.runs / run_id), caller)
        if job is not None and metadata.items() <= job["metadata"].items():
            yield job


def _job_or_none(run: RunFolder, caller: Caller) -> Object | None:
    """None of another kind of run, and of one that cannot be read: that must not hide the others."""
    try:
        return job_object(run, caller.service.store) if is_training(run) else None
    except StateError as error:
        logger().warning("job_not_listed", run_id=run.run_id, code=error.code)
        return None


async def retrieve_job(request: Request, caller: Caller) -> Response:
    """GET: one job."""
    return await _job(request, caller, (await _run(request, caller)).run_id)


async def list_events(request: Request, caller: Caller) -> Response:
    """GET: the events of a job, newest first."""
    require_known(request, "after", "limit")
    limit, after = limit_of(request, USUAL, MOST), request.query_params.get("after")
    run = await _run(request, caller)
    return JSONResponse(page(await anyio.to_thread.run_sync(job_events, run, after, limit + 1), limit))


async def list_checkpoints(request: Request, caller: Caller) -> Response:
    """GET: what the job has delivered."""
    require_known(request, "after", "limit")
    limit, after = limit_of(request, USUAL_CHECKPOINTS, MOST), request.query_params.get("after")
    run = await _run(request, caller)
    found = await anyio.to_thread.run_sync(checkpoint_object, run, caller.service.store)
    return JSONResponse(page([found] if found and found["id"] != after else [], limit))


async def cancel_job(request: Request, caller: Caller) -> Response:
    """POST: stop a job; its model is kept."""
    return await _stop(request, caller, "cancelled over OpenAI's interface")


async def pause_job(request: Request, caller: Caller) -> Response:
    """POST: stop a job with a checkpoint. It counts as cancelled until it is resumed."""
    return await _stop(request, caller, "paused over OpenAI's interface")


async def _stop(request: Request, caller: Caller, reason: str) -> Response:
    run = await _run(request, caller)
    state = await anyio.to_thread.run_sync(caller.service.store.observe, run)
    if state.status in ENDED:
        said = f"The job has ended already: it has {STATUSES[state.status]}."
        raise ApiError(400, said.replace("has cancelled", "was cancelled"), "invalid_job_state")
    await caller.service.cancel(run.run_id, reason)
    return await _job(request, caller, run.run_id)


async def resume_job(request: Request, caller: Caller) -> Response:
    """POST: go on with a job that was paused, cancelled or interrupted, from its last checkpoint."""
    run = await _run(request, caller)
    await caller.service.resume(run.run_id)
    return await _job(request, caller, run.run_id)


async def _run(request: Request, caller: Caller) -> RunFolder:
    store = caller.service.store
    run = await anyio.to_thread.run_sync(run_of_job, request.path_params["job_id"], store)
    request.state.runs = [run.run_id]
    return run


async def _job(request: Request, caller: Caller, run_id: str) -> Response:
    request.state.runs = [run_id]
    store = caller.service.store
    return JSONResponse(await anyio.to_thread.run_sync(lambda: job_object(store.find(run_id), store)))
