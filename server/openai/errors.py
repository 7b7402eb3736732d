"""Every error in OpenAI's form: `{"error": {"message", "type", "param", "code"}}` with its HTTP status."""

from __future__ import annotations

import re
from http import HTTPStatus

from starlette.responses import JSONResponse

from ...training.errors import (
    BackpropagateError,
    ConfigError,
    DatasetNotFoundError,
    DiskFullError,
    InputError,
    QueueFullError,
    RunNotFoundError,
    TooManyCallsError,
)
from ...training.redact import scrub
from ...training.untrusted import sanitized

STATUSES: tuple[tuple[type[BackpropagateError], HTTPStatus], ...] = (
    (RunNotFoundError, HTTPStatus.NOT_FOUND),
    (DatasetNotFoundError, HTTPStatus.NOT_FOUND),
    (TooManyCallsError, HTTPStatus.TOO_MANY_REQUESTS),
    (QueueFullError, HTTPStatus.TOO_MANY_REQUESTS),
    (DiskFullError, HTTPStatus.INSUFFICIENT_STORAGE),
    (InputError, HTTPStatus.BAD_REQUEST),
    (ConfigError, HTTPStatus.BAD_REQUEST),
)
"""The first that fits; else the server failed."""

PARAMETER = re.compile(r"([a-z][a-z_]*(?:\.[a-z0-9_]+)*): ")
"""How a message about a parameter begins."""

OURS = {"dataset:": "training_file:", "validation:": "validation_file:", "prompts": "messages:"}
"""How messages of the service begin → the parameter that was given."""
LEADING = re.compile(r"^(dataset:|validation:|prompts)(?:\[0\])?:?")


class ApiError(Exception):
    """An error that a client gets.

    Args:
        code: OpenAI's, or where it has none that of our error.
        param: the parameter that was wrong.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        param: str | None = None,
        *,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.retry_after_s = retry_after_s

    @property
    def record(self) -> dict[str, str | None]:
        message = sanitized(scrub(self.message))
        return {"message": message, "type": _type_of(self.status), "param": self.param, "code": self.code}

    def response(self) -> JSONResponse:
        headers = {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        return JSONResponse({"error": self.record}, self.status, headers)


def api_error(error: BackpropagateError, param: str | None = None) -> ApiError:
    """One of our errors."""
    status = next((status for kind, status in STATUSES if isinstance(error, kind)), 500)
    record = error.record()
    said = LEADING.sub(lambda found: OURS[found[1]], record.message)
    named = PARAMETER.match(said)
    message = f"{said} {record.hint}" if record.hint else said
    return ApiError(status, message, record.code, param or (named[1] if named else None))


def not_known(param: str, value: str) -> ApiError:
    """A parameter that is not supported.

    Args:
        value: why, as a sentence.
    """
    return ApiError(400, f"{param}: {value}", "unsupported_parameter", param)


def _type_of(status: int) -> str:
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return "rate_limit_error"
    return "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
