"""The JSON object in the body of a request."""

from __future__ import annotations

import json
from typing import Any, cast

from starlette.requests import Request

from ..access.request_body import BodyError, read_body
from .errors import ApiError


async def json_body(request: Request) -> dict[str, Any]:
    """The object; raises ApiError if there is none, or it is too large."""
    if not request.headers.get("content-type", "").startswith("application/json"):
        raise ApiError(
            400, "The body should be JSON, with the Content-Type application/json.", "invalid_body"
        )
    try:
        found: object = json.loads((await read_body(request.receive)).decode())
    except BodyError as error:
        raise ApiError(error.status, str(error), "invalid_body") from error
    except (ValueError, RecursionError) as error:
        raise ApiError(400, "The body is not JSON that can be read.", "invalid_body") from error
    if not isinstance(found, dict):
        raise ApiError(400, "The body should be a JSON object.", "invalid_body")
    return cast("dict[str, Any]", found)
