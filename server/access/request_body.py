"""Reads the body of an HTTP request once, and gives it to the application behind as it came."""

from __future__ import annotations

import json
from typing import Any

from starlette.types import Message, Receive

MOST_BYTES = 4 * 2**20  # as the SDK's own limit


class BodyError(Exception):
    """The body is not accepted.

    Args:
        status: of the HTTP answer.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


async def read_body(receive: Receive) -> bytes:
    """The whole body.

    Raises:
        BodyError: it is too large, or the client has left.
    """
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise BodyError(400, "The request has no end.")
        body += message.get("body", b"")
        if len(body) > MOST_BYTES:
            raise BodyError(413, f"The request is larger than {MOST_BYTES} bytes.")
        more = message.get("more_body", False)
    return bytes(body)


def message_in(body: bytes) -> dict[str, Any]:
    """The JSON-RPC message that the SDK will find in the body.

    Raises:
        BodyError: it is none, or not in UTF-8: two parsers could then find different ones.
    """
    try:
        found: object = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BodyError(400, "The body is not JSON that can be read.") from error
    if not isinstance(found, dict):
        raise BodyError(400, "The body must be one JSON-RPC message.")
    return found  # pyright: ignore[reportUnknownVariableType]


def again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body first, and then what follows: that the client leaves."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
