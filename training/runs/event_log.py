"""events.jsonl: the events of a run, one JSON object per line, append-only.

Readers never wait for the writer, and ignore an incomplete last line.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from ..events import Event, event_from
from ..files.atomic_json import disk_full, is_disk_full
from ..redact import scrub_all
from ..untrusted import sanitized_all
from .identity import now

TAIL = 64 * 1024  # bytes; hundreds of events


class EventLog:
    """The writer of events.jsonl. Only the holder of the run's lock has one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seq = _mend(path)

    def append(self, event: Event) -> Event:
        """Number, date, append and flush an event; returns the written event.

        Raises:
            DiskFullError: the disk is full; the file ends after the previous event.
        """
        written = event.model_copy(update={"seq": self._seq + 1, "t": now()})
        record = sanitized_all(scrub_all(written.model_dump(mode="json", exclude_none=True)))
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
                os.write(descriptor, line[written:])  # raises the cause of the short write
        except OSError as error:
            os.ftruncate(descriptor, size)
            if is_disk_full(error):
                raise disk_full(self.path, error) from error
            raise
        finally:
            os.close(descriptor)


def read_events(path: Path, offset: int = 0) -> tuple[list[Event], int]:
    """The complete lines from byte `offset` on, and the offset after the last one."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read()
    except FileNotFoundError:
        return [], offset
    end = data.rfind(b"\n") + 1
    return [event for line in data[:end].splitlines() if (event := _parse(line))], offset + end


def latest_events(path: Path) -> list[Event]:
    """The newest events: those in the last 64 KiB of the file."""
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
    """Remove an incomplete last line, and return the number of the last event."""
    events, end = read_events(path)
    if path.exists() and path.stat().st_size > end:
        with path.open("r+b") as file:
            file.truncate(end)
    return events[-1].seq if events else 0
