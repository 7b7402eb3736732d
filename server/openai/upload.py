"""Reads the upload of a file: a form with `file` and `purpose`, at most so large."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import BinaryIO, NamedTuple

from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.types import Message, Receive

from ...training.untrusted import quoted
from .errors import ApiError, not_known

MOST_BYTES = 512 * 2**20  # as OpenAI's own limit
FORM_BYTES = 64 * 2**10  # of all that is not the file
FIRST_LINE_BYTES = 2**20
PURPOSE = "fine-tune"


class Uploaded(NamedTuple):
    """A file that was sent, open at its beginning."""

    filename: str
    content: BinaryIO
    size: int


def announced_size(request: Request) -> int:
    """The bytes that a client announces; 0 if it does not. Raises ApiError for more than is received."""
    announced = request.headers.get("content-length", "0")
    size = int(announced[:18]) if announced.isascii() and announced.isdigit() else 0
    if size > MOST_BYTES + FORM_BYTES:
        raise _too_large()
    return size


async def sent_form(request: Request) -> FormData:
    """The form of a request; the caller closes it.

    Raises:
        ApiError: it is none, or too large.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise ApiError(400, "The body should be multipart/form-data with file and purpose.", "invalid_body")
    limited = Request(request.scope, _at_most(MOST_BYTES + FORM_BYTES, request.receive))
    return await limited.form(max_files=1, max_fields=8, max_part_size=FORM_BYTES)


def uploaded(form: FormData) -> Uploaded:
    """The file of the form.

    Raises:
        ApiError: a field is missing, or not supported.
    """
    for name in form:
        if name not in ("file", "purpose"):
            raise not_known(quoted(name)[1:-1], "there is no such field here; there is file and purpose.")
    file, purpose = form.get("file"), form.get("purpose")
    if not isinstance(file, UploadFile):
        raise ApiError(400, "file: is missing.", "missing_required_parameter", "file")
    if purpose != PURPOSE:
        said = f"purpose: should be {PURPOSE!r}, not {quoted(purpose or '')}: files are for training here."
        raise ApiError(400, said, "invalid_value", "purpose")
    content = file.file
    _require_json_lines(content)
    return Uploaded(file.filename or "", content, file.size or 0)


def _require_json_lines(content: BinaryIO) -> None:
    """Refuse what is plainly no JSON Lines; each row is checked when a job reads it."""
    first = next((line for _ in range(100) if (line := content.readline(FIRST_LINE_BYTES)).strip()), b"")
    content.seek(0)
    try:
        row: object = json.loads(first.decode("utf-8-sig")) if len(first) < FIRST_LINE_BYTES else {}
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        said = (
            "file: its first line is no JSON object. It should be JSON Lines: one object per line, in UTF-8."
        )
        raise ApiError(400, said, "invalid_file_format", "file")


def _at_most(most: int, receive: Receive) -> Receive:
    taken = 0

    async def limited() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > most:
            raise _too_large()
        return message

    return limited


def _too_large() -> ApiError:
    return ApiError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"file: is larger than {MOST_BYTES // 2**20} MiB.",
        "file_too_large",
        "file",
    )
