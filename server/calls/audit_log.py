"""audit.jsonl in the home of runs: who called what, and how it ended. Appended only, for its owner only.

Several servers may write: each line is one write, and a full file is renamed under a lock.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ...training.errors import BackpropagateError
from ...training.files.private_folder import make_private
from ...training.logs import logger
from ...training.redact import scrub_all
from ...training.runs.identity import now
from ...training.runs.locks import Lock

NAME = "audit.jsonl"
FULL_BYTES = 10 * 2**20
KEPT = 5  # full files: audit.1.jsonl is the newest


class AuditLog:
    """The log of one home.

    Args:
        full_bytes: size of a file after which a new one begins.
    """

    def __init__(self, home: Path, full_bytes: int = FULL_BYTES) -> None:
        self.path = home / NAME
        self._full_bytes = full_bytes
        self._failed = False

    def record(self, **fields: Any) -> None:
        """Append a line. A home that cannot be written stops no call; that is logged once."""
        line = json.dumps(scrub_all({"time": now(), **fields}), ensure_ascii=True) + "\n"
        try:
            self._append(line.encode())
            self._failed = False
        except (OSError, BackpropagateError) as error:
            if not self._failed:
                logger().error("audit_log_not_written", error=type(error).__name__, untrusted=str(error))
            self._failed = True

    def _append(self, line: bytes) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        flags |= getattr(os, "O_BINARY", 0)
        try:
            descriptor = os.open(self.path, flags, 0o600)
        except FileNotFoundError:
            make_private(self.path.parent)
            descriptor = os.open(self.path, flags, 0o600)
        try:
            os.write(descriptor, line)
            size = os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
        if size > self._full_bytes:
            self._rotate()

    def _rotate(self) -> None:
        lock = Lock(self.path.with_name("audit.lock"))
        if not lock.try_acquire():
            return  # another server does it
        try:
            if self.path.stat().st_size > self._full_bytes:
                for number in range(KEPT - 1, 0, -1):
                    if self._full(number).exists():
                        self._full(number).replace(self._full(number + 1))
                self.path.replace(self._full(1))
        finally:
            lock.release()

    def _full(self, number: int) -> Path:
        return self.path.with_name(f"audit.{number}.jsonl")
