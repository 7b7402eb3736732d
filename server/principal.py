"""Who sends a request."""

from __future__ import annotations

from typing import Any, cast

from starlette.requests import Request

PRINCIPAL = "backpropagate.principal"
"""The entry of an HTTP request's scope that the check of its token writes."""


def http_request(request: object | None) -> Request[Any] | None:
    """The HTTP request of a call; None over a pipe."""
    return cast("Request[Any]", request) if isinstance(request, Request) else None


def principal_of(request: object | None) -> str | None:
    """The principal of a request, or None for the owner of the home of runs, who may see all of them.

    Args:
        request: the HTTP request of the call; None over a pipe, which only its own user can hold.
    """
    sent = http_request(request)
    return None if sent is None else sent.scope.get(PRINCIPAL)
