"""Runs as they move, as server-sent events. A browser that was cut off goes on after the last one it saw."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import anyio
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ..server.resources.run_metrics import metrics_of
from ..tools.get_log import event_words
from ..training.errors import BackpropagateError
from ..training.events import Event
from ..training.hardware.gpu import GpuReading
from ..training.runs.folder import ENDED, Status
from ..training.runs.view import RunLine
from ..training.service import TrainingService
from .desk import desk_of
from .look import clean
from .told import told_run

LOOK_S = 0.3
GPU_S = 2.0
BEAT_S = 15.0
LINES = 200
STREAMS = 64
LIST_S = 1.0

_open = 0  # streams of this process


async def run_stream(request: Request) -> Response:
    """The run's metrics whenever they change, and at its end the whole run."""
    service = desk_of(request).service
    run_id = (await service.get(request.path_params["run_id"])).run_id
    return _stream(_run_events(service, run_id, _seen(request)))


async def runs_stream(request: Request) -> Response:
    """Each run that is queued or running, or was a moment ago, whenever one has changed."""
    return _stream(_list_events(desk_of(request).service))


def _seen(request: Request) -> int:
    text = request.headers.get("last-event-id") or request.query_params.get("since", "0")
    return int(text) if text.isdecimal() and len(text) < 16 else 0


def _stream(events: AsyncGenerator[str]) -> Response:
    if _open >= STREAMS:
        return Response("Too many pages are open.", 503, {"retry-after": "5"})
    return StreamingResponse(_counted(events), media_type="text/event-stream")


async def _counted(events: AsyncGenerator[str]) -> AsyncIterator[str]:
    global _open
    _open += 1
    try:
        async for event in events:
            yield event
    finally:
        _open -= 1
        await events.aclose()


async def _run_events(service: TrainingService, run_id: str, since: int) -> AsyncGenerator[str]:
    gpus: list[GpuReading] = []
    before, said_at, read_at = "", 0.0, -GPU_S
    while True:
        try:
            view, curve = await service.get(run_id), await service.curve(run_id)
            if time.monotonic() - read_at >= GPU_S and view.status is Status.RUNNING:
                gpus, read_at = await service.gpus_of(run_id), time.monotonic()
        except BackpropagateError as error:  # it was removed
            yield _event("gone", {"message": error.message})
            return
        metrics = metrics_of(view, curve, since, gpus)
        if (shown := json.dumps(metrics)) != before:
            metrics["log"] = await _log(service, run_id, since)
            since, before, said_at = curve.seq, shown, time.monotonic()
            yield _event("metrics", clean(metrics), since)
        elif time.monotonic() - said_at > BEAT_S:
            said_at = time.monotonic()
            yield ": still here\n\n"
        if view.status in ENDED:
            yield _event("end", told_run(view), since)
            return
        await anyio.sleep(LOOK_S)


async def _log(service: TrainingService, run_id: str, since: int) -> list[tuple[int, str]]:
    """Number and line of each event that is newer."""
    events = [event for event in await service.latest_events(run_id) if event.seq > since]
    return [(event.seq, log_line(event)) for event in events[-LINES:]]


def log_line(event: Event) -> str:
    """Time of day (UTC) and words of an event."""
    return f"{event.t[11:19]} {event_words(event)}"


async def _list_events(service: TrainingService) -> AsyncGenerator[str]:
    before: list[dict[str, Any]] = []
    said_at = 0.0
    while True:
        now = await unfinished(service)
        ids = {run["run_id"] for run in now}
        ended = [run for run in before if run["run_id"] not in ids]
        now += [run for one in ended if (run := await _line_of(service, one["run_id"]))]
        if now != before:
            yield _event("runs", clean(now))
            before, said_at = [run for run in now if run["run_id"] in ids], time.monotonic()
        elif time.monotonic() - said_at > BEAT_S:
            said_at = time.monotonic()
            yield ": still here\n\n"
        await anyio.sleep(LIST_S)


async def unfinished(service: TrainingService, most: int = 50) -> list[dict[str, Any]]:
    """The runs that are running, and those that wait, the newest first."""
    found: list[RunLine] = []
    for status in (Status.RUNNING, Status.QUEUED):
        found += (await service.list(status, most))[0]
    return [run.model_dump(mode="json") for run in found]


async def _line_of(service: TrainingService, run_id: str) -> dict[str, Any] | None:
    try:
        view = await service.get(run_id)
    except BackpropagateError:
        return None
    return RunLine(**view.model_dump(include=set(RunLine.model_fields))).model_dump(mode="json")


def _event(kind: str, data: Any, number: int | None = None) -> str:
    numbered = "" if number is None else f"id: {number}\n"
    return f"{numbered}event: {kind}\ndata: {json.dumps(data)}\n\n"
