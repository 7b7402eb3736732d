"""The lines of stdin and stdout, in front of the SDK's transport, which drops what it cannot parse.

Each line that is no message is answered here, so that no client waits for ever: -32700 if it is not JSON,
and -32600 otherwise.
"""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from io import FileIO
from typing import Any, BinaryIO

from mcp.types import INVALID_REQUEST, PARSE_ERROR, JSONRPCNotification, jsonrpc_message_adapter

LINE_BYTES = 64 * 2**20
LEAVING_S = (
    5.0  # after stdin has ended: a client that does not read, or endless work, does not keep the server
)
BOM = b"\xef\xbb\xbf"


class MessageWriter:
    """stdout as the SDK writes to it; lines are whole, from whichever thread."""

    def __init__(self, wire: FileIO) -> None:
        self._wire = wire
        self._lock = threading.Lock()

    def write(self, line: str) -> None:
        rest = memoryview(line.encode())
        with self._lock, suppress(BrokenPipeError):  # a client that is gone closes stdin as well
            while rest:
                rest = rest[self._wire.write(rest) :]

    def flush(self) -> None:
        """Nothing: the file has no buffer, which a blocked thread would keep locked at the end."""

    def refuse(self, code: int, message: str, request_id: str | int | None) -> None:
        """Answer what was not a message."""
        error = {"code": code, "message": message}
        self.write(json.dumps({"jsonrpc": "2.0", "id": request_id, "error": error}) + "\n")


class MessageReader:
    """stdin as the SDK reads it: every line is a message."""

    def __init__(self, wire: BinaryIO, answers: MessageWriter) -> None:
        self._wire = wire
        self._answers = answers

    def readline(self) -> str:
        """The next message, or nothing at the end."""
        while line := self._wire.readline(LINE_BYTES):
            message = self._message(line)
            if message is not None:
                return message
        _leave_soon()
        return ""

    def _message(self, line: bytes) -> str | None:
        if not line.endswith(b"\n") and len(line) == LINE_BYTES:
            self._skip_line()
            self._answers.refuse(INVALID_REQUEST, f"The message is longer than {LINE_BYTES} bytes.", None)
            return None
        line = line.removeprefix(BOM).strip()
        if not line:
            return None
        if not _is_message(line):
            self._answers.refuse(*_refusal(line))
            return None
        return line.decode() + "\n"

    def _skip_line(self) -> None:
        while (rest := self._wire.readline(LINE_BYTES)) and not rest.endswith(b"\n"):
            pass


def _is_message(line: bytes) -> bool:
    try:
        message = jsonrpc_message_adapter.validate_json(line, by_name=False)
        # With an id that is none, a request would pass for a notification, and would not be answered.
        return not (isinstance(message, JSONRPCNotification) and "id" in json.loads(line))
    except ValueError:
        return False


def _refusal(line: bytes) -> tuple[int, str, str | int | None]:
    """Code, message and id of the answer to a line that is no message."""
    try:
        found: Any = json.loads(line.decode(errors="replace"))
    except (ValueError, RecursionError):
        return PARSE_ERROR, "The line is not JSON that can be read.", None
    if isinstance(found, list):
        return INVALID_REQUEST, "Batches are not supported: send one message on each line.", None
    given = found.get("id") if isinstance(found, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    request_id = given if isinstance(given, str | int) and not isinstance(given, bool) else None
    if _is_encodable(line):
        return INVALID_REQUEST, "The line is not a JSON-RPC 2.0 message of MCP.", request_id
    return PARSE_ERROR, "The line is not UTF-8, or has half of a surrogate pair.", request_id


def _is_encodable(line: bytes) -> bool:
    try:
        json.dumps(json.loads(line), ensure_ascii=False).encode()
    except ValueError:
        return False
    return True


def _leave_soon() -> None:
    """End the process, whatever still runs in it; runs have processes of their own."""
    leave = threading.Timer(LEAVING_S, os._exit, [0])
    leave.daemon = True
    leave.start()
