"""/v1/models: the caller's tuned models, and the models that can be trained by a short name."""

from __future__ import annotations

from collections.abc import Iterator

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ...training.errors import StateError
from ...training.logs import logger
from ...training.models.presets import PRESETS
from ...training.runs.folder import RunFolder
from ...training.runs.store import RunStore
from .caller import Caller
from .job_objects import ORGANISATION, created_at
from .names import has_model, is_training, no_model, run_of_model, tuned_name
from .pages import Object


async def list_models(request: Request, caller: Caller) -> Response:
    """GET: all models, tuned ones first."""
    tuned = await anyio.to_thread.run_sync(lambda: list(_tuned(caller.service.store)))
    return JSONResponse({"object": "list", "data": [*tuned, *map(_preset, PRESETS)]})


async def retrieve_model(request: Request, caller: Caller) -> Response:
    """GET: one model."""
    name = request.path_params["model"]
    if name in PRESETS:
        return JSONResponse(_preset(name))
    run = await anyio.to_thread.run_sync(run_of_model, name, caller.service.store)
    return JSONResponse(_model(run))


def asked_model(name: str, store: RunStore) -> str:
    """What the service calls a model of the list.

    Raises:
        ApiError: it is none of the caller's.
    """
    if name in PRESETS:
        return name
    if not name.startswith("ft:"):
        raise no_model(name)
    return run_of_model(name, store).run_id


def _tuned(store: RunStore) -> Iterator[Object]:
    for run_id in store.ids():
        run = RunFolder(store.runs / run_id)
        try:
            if is_training(run) and has_model(run):
                yield _model(run)
        except StateError as error:
            logger().warning("model_not_listed", run_id=run_id, code=error.code)


def _model(run: RunFolder) -> Object:
    name = tuned_name(run.run_id, run.spec())
    return {**_object(name), "created": created_at(run.state().created_at)}


def _preset(name: str) -> Object:
    return {**_object(name), "owned_by": PRESETS[name].hub_id.partition("/")[0]}


def _object(name: str) -> Object:
    return {"id": name, "object": "model", "created": 0, "owned_by": ORGANISATION}
