"""The body of a refused request, in the form that the clients of its address read."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

OPENAI = "/v1/"
"""Where OpenAI's interface is, if it is offered."""


def is_openai(scope: Mapping[str, Any]) -> bool:
    """Whether a request is for OpenAI's interface."""
    return str(scope["path"]).startswith(OPENAI)


def refusal_body(scope: Mapping[str, Any], status: int, error: str, description: str) -> dict[str, Any]:
    """OAuth's form (RFC 6750), or OpenAI's for its interface."""
    if not is_openai(scope):
        return {"error": error, "error_description": description}
    code = "invalid_api_key" if status == HTTPStatus.UNAUTHORIZED else error
    failed = status >= HTTPStatus.INTERNAL_SERVER_ERROR
    kind = "server_error" if failed else "invalid_request_error"
    return {"error": {"message": description, "type": kind, "param": None, "code": code}}
