"""The routes of OpenAI's interface."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from ...training.errors import BackpropagateError
from ...training.files.paths import PathPolicy
from ...training.logs import logger
from ...training.service import TrainingService
from ..calls.audit_log import AuditLog
from ..calls.call_limit import OpenCalls
from . import chat, files, jobs, models
from .around import Around
from .caller import Caller, Callers
from .errors import ApiError, api_error

Endpoint = Callable[[Request, Caller], Awaitable[Response]]

JOBS = "/v1/fine_tuning/jobs"
JOB = f"{JOBS}/{{job_id}}"
FILE = "/v1/files/{file_id}"
ROUTES: tuple[tuple[str, str, Endpoint], ...] = (
    ("GET", "/v1/files", files.list_files),
    ("POST", "/v1/files", files.upload_file),
    ("GET", FILE, files.retrieve_file),
    ("DELETE", FILE, files.delete_file),
    ("GET", f"{FILE}/content", files.file_content),
    ("GET", JOBS, jobs.list_jobs),
    ("POST", JOBS, jobs.create_job),
    ("GET", JOB, jobs.retrieve_job),
    ("GET", f"{JOB}/events", jobs.list_events),
    ("GET", f"{JOB}/checkpoints", jobs.list_checkpoints),
    ("POST", f"{JOB}/cancel", jobs.cancel_job),
    ("POST", f"{JOB}/pause", jobs.pause_job),
    ("POST", f"{JOB}/resume", jobs.resume_job),
    ("GET", "/v1/models", models.list_models),
    ("GET", "/v1/models/{model:path}", models.retrieve_model),
    ("POST", "/v1/chat/completions", chat.complete_chat),
)


def openai_app(
    service: TrainingService,
    paths: PathPolicy,
    security: TransportSecuritySettings,
    *,
    read_only: bool,
) -> ASGIApp:
    """The application; who may use it is decided in front of it.

    Args:
        service, paths: of the owner of the home; each request gets its principal's.
        security: the Hosts and Origins of this server.
        read_only: whether it answers only requests that change nothing.
    """
    callers = Callers(service, paths)
    routes = [
        Route(path, _endpoint(path, endpoint, callers), methods=[method]) for method, path, endpoint in ROUTES
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _unknown_address})
    calls = OpenCalls(service.settings.principal.calls)
    return Around(app, security, calls, AuditLog(service.settings.home), read_only=read_only)


def _endpoint(path: str, endpoint: Endpoint, callers: Callers) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint with its caller; every error is answered in OpenAI's form."""

    async def answer(request: Request) -> Response:
        request.state.route = path
        try:
            return await endpoint(request, callers.of(request))
        except ApiError as error:
            return _told(request, error)
        except BackpropagateError as error:
            return _told(request, api_error(error))
        except ClientDisconnect:
            return _told(request, ApiError(400, "The client left before the end of its request.", "left"))
        except HTTPException as error:  # of a form that cannot be read
            return _told(request, ApiError(error.status_code, str(error.detail), "invalid_body"))
        except Exception as error:
            logger().exception("request_failed", route=path)
            said = f"The server failed unexpectedly ({type(error).__name__}); its log has the details."
            return _told(request, ApiError(500, said, "RUNTIME_ERROR"))

    return answer


def _told(request: Request, error: ApiError) -> Response:
    request.state.code = error.code
    return error.response()


async def _unknown_address(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    known = "/v1/files, /v1/fine_tuning/jobs, /v1/models and /v1/chat/completions"
    said = f"{request.method} is not possible at this address. This server has {known}."
    return _told(request, ApiError(error.status_code, said, "unknown_url"))
