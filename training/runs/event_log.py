"""events.jsonl: what happened in a run, one JSON object a line, only ever appended to.

A reader never waits for the writer, and a line that is not yet whole is not yet there.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from ..events import Event, event_from
from ..files.atomic_json import disk_full, is_disk_full
from ..redact import scrub_all
from .identity import now

TAIL = 64 * 1024  # bytes; holds hundreds of the latest events


class EventLog:
    """The writer's end. Only the holder of the run's lock has one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seq = _mend(path)

    def append(self, event: Event) -> Event:
        """Number an event, date it, add it and flush it; returns it as it was written.

        Raises:
            DiskFullError: there is no space; the file ends at the event before.
        """
        written = event.model_copy(update={"seq": self._seq + 1, "t": now()})
        record = scrub_all(written.model_dump(mode="json", exclude_none=True))
        self._write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        self._seq = written.seq
        return written

    def _write(self, line: bytes) -> None:
        size = self.path.stat().st_size if self.path.exists() else 0
        descriptor = os.open(
            self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o600
        )
        try:
            written = os.write(descriptor, line)
            if written < len(line):
                os.write(descriptor, line[written:])  # raises the reason for the short write
        except OSError as error:
            os.ftruncate(descriptor, size)
            if is_disk_full(error):
                raise disk_full(self.path, error) from error
            raise
        finally:
            os.close(descriptor)


def read_events(path: Path, offset: int = 0) -> tuple[list[Event], int]:
    """The whole lines from byte `offset` on, and the offset after the last of them."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read()
    except FileNotFoundError:
        return [], offset
    end = data.rfind(b"\n") + 1
    return [event for line in data[:end].splitlines() if (event := _parse(line))], offset + end


def latest_events(path: Path) -> list[Event]:
    """The newest events, as many as lie in the file's last 64 KiB."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return []
    return read_events(path, _line_start(path, size))[0]


def _line_start(path: Path, size: int) -> int:
    if size <= TAIL:
        return 0
    with path.open("rb") as file:
        file.seek(size - TAIL)
        return size - TAIL + file.read(TAIL).find(b"\n") + 1


def _parse(line: bytes) -> Event | None:
    try:
        return event_from(json.loads(line))
    except (ValueError, AttributeError):
        return None


def _mend(path: Path) -> int:
    """Cut a torn last line off, and return the number of the last event."""
    events, end = read_events(path)
    if path.exists() and path.stat().st_size > end:
        with path.open("r+b") as file:
            file.truncate(end)
    return events[-1].seq if events else 0
