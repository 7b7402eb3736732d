"""The table of addresses, and what stands before all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from ..training.errors import BackpropagateError, RunNotFoundError, RuntimeFailure
from ..training.logs import logger
from .admit import Admit
from .desk import Desk, desk_of, session_of
from .forms import FORM_TOKEN
from .guard import FORM_BYTES, Guard, TooLargeError
from .live import run_stream, runs_stream
from .look import page, static_file, texts
from .options import UiOptions
from .pages import ask, dataset, export, login, models, multi_run, run, runs, train

UPLOAD = "/dataset/upload"
FIELDS = 200

Show = Callable[..., Awaitable[Response]]
Submit = Callable[[Request, Any], Awaitable[Response]]


def build_app(desk: Desk, options: UiOptions, port: int) -> Guard:
    """The pages behind their guard."""
    app = Starlette(routes=_routes(), exception_handlers=_handlers())
    app.state.desk = desk
    upload_bytes = desk.service.settings.ui.upload_mib * 2**20 + FORM_BYTES

    return Guard(
        Admit(app, desk),
        lambda host: options.is_own_host(host, port),
        lambda path: upload_bytes if path == UPLOAD else FORM_BYTES,
        lambda status, reason: desk.log.record(page="refused", status=status, reason=reason),
    )


def _routes() -> list[Route]:
    actions = {"cancel": run.cancel, "resume": run.resume, "extend": run.extend, "delete": run.delete}
    return [
        Route("/", _first),
        Route("/static/{name}", static_file),
        Route("/runs", runs.show),
        Route("/runs/stream", runs_stream),
        Route("/runs/{run_id}", run.show),
        Route("/runs/{run_id}/stream", run_stream),
        Route("/runs/{run_id}/curve.png", run.picture),
        *(Route(f"/runs/{{run_id}}/{name}", _posted(act), methods=["POST"]) for name, act in actions.items()),
        *_form("/train", train.show, train.submit),
        Route("/train/plan", _posted(train.plan, train.show), methods=["POST"]),
        *_form("/multi-run", multi_run.show, multi_run.submit),
        *_form("/dataset", dataset.show, dataset.submit),
        Route(UPLOAD, _posted(dataset.upload, dataset.show), methods=["POST"]),
        *_form("/export", export.show, export.submit),
        Route("/register", _posted(export.register, export.show), methods=["POST"]),
        *_form("/ask", ask.show, ask.submit),
        Route("/models", models.show),
        *_form("/login", login.show, login.submit),
        Route("/logout", _posted(login.leave), methods=["POST"]),
    ]


def _form(path: str, show: Show, submit: Submit) -> list[Route]:
    async def filled_by_address(request: Request) -> Response:
        return await show(request, request.query_params)

    return [Route(path, filled_by_address), Route(path, _posted(submit, show), methods=["POST"])]


def _posted(submit: Submit, show: Show | None = None) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint that reads a form of ours.

    Args:
        show: shows the form again, with the error and what it held; None: a page with the error.
    """

    async def endpoint(request: Request) -> Response:
        async with request.form(max_files=1, max_fields=FIELDS, max_part_size=FORM_BYTES) as form:
            given = texts(form)
            token = given.get(FORM_TOKEN, "")
            if not desk_of(request).sessions.is_form_token(session_of(request), token):
                return PlainTextResponse("The form is too old: open the page again.", 403)
            desk_of(request).log.record(page=request.url.path, user=session_of(request).user)
            try:
                return await submit(request, {**form} if request.url.path == UPLOAD else given)
            except BackpropagateError as error:
                if show is None:
                    raise
                return await show(request, given, error)

    return endpoint


async def _first(request: Request) -> Response:
    return RedirectResponse("/runs", 303)


def _handlers() -> Mapping[Any, Any]:
    return {
        BackpropagateError: _known_error,
        TooLargeError: _too_large,
        404: _not_found,
        500: _unforeseen,
    }


async def _known_error(request: Request, error: BackpropagateError) -> Response:
    status = 404 if isinstance(error, RunNotFoundError) else 400 if error.exit_code == 1 else 500
    return page(request, "error.html", http_status=status, error=error, title="That did not work")


async def _too_large(request: Request, error: TooLargeError) -> Response:
    return PlainTextResponse(str(error), 413, {"connection": "close"})


async def _not_found(request: Request, error: Exception) -> Response:
    unknown = RunNotFoundError("There is no such page.", hint="Choose one above.")
    return page(request, "error.html", http_status=404, error=unknown, title="Not found")


async def _unforeseen(request: Request, error: Exception) -> Response:
    logger().error("page_failed", path=request.url.path, error=type(error).__name__, untrusted=str(error))
    known = RuntimeFailure(f"Unexpected {type(error).__name__}.", hint="The log of the page tells more.")
    return page(request, "error.html", http_status=500, error=known, title="That did not work")
