"""Lists in pages: `after` an id, at most `limit` objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from starlette.requests import Request

from ...training.untrusted import quoted
from .errors import ApiError, not_known

Object = dict[str, Any]


def limit_of(request: Request, usual: int, most: int) -> int:
    """How many objects are asked for; raises ApiError."""
    given = request.query_params.get("limit")
    if given is None:
        return usual
    if not given.isascii() or not given.isdigit() or not 1 <= int(given[:9]) <= most or len(given) > 9:
        said = f"limit: should be a whole number from 1 to {most}, not {quoted(given)}."
        raise ApiError(400, said, "invalid_value", "limit")
    return int(given)


def require_known(request: Request, *known: str) -> None:
    """Refuse other parameters of the address by name."""
    for name in request.query_params:
        if name not in known:
            raise not_known(
                quoted(name)[1:-1], f"this list has no such parameter; it has {', '.join(known)}."
            )


def page(objects: Iterable[Object], limit: int) -> Object:
    """The first `limit` of the objects, as a list of the API."""
    found = list(islice(objects, limit + 1))
    shown = found[:limit]
    ends: Mapping[str, Any] = (
        {"first_id": shown[0].get("id"), "last_id": shown[-1].get("id")} if shown else {}
    )
    return {"object": "list", "data": shown, **ends, "has_more": len(found) > limit}
