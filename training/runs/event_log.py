"""events.jsonl: the events of a run, one JSON object per line, append-only.

Readers never wait for the writer, and ignore an incomplete last line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from ..events import Event, event_from
from ..files.atomic_json import disk_full, is_disk_full
from ..files.regular_file import open_regular
from ..redact import scrub_all
from ..untrusted import sanitized_all
from .identity import now

TAIL = 64 * 1024  # bytes; hundreds of events
EVENTS_BYTES = 2**30  # a million steps have 200 MB
CHUNK = 16 * 2**20  # bytes


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
    """The complete lines from byte `offset` on, and the offset after the last one.

    Lines that are not events are passed over. At most `CHUNK` bytes are read: a caller that wants all reads
    until the offset stays.

    Raises:
        OSError, ValueError: it is not a file that can be read.
    """
    data = _bytes_of(path, offset, CHUNK)
    end = data.rfind(b"\n") + 1
    if not end and len(data) == CHUNK:
        end = CHUNK  # no event is as long
    return [event for line in data[:end].split(b"\n") if (event := _parse(line))], offset + end


def all_events(path: Path) -> Iterator[Event]:
    """Every event of the file; raises as `read_events`."""
    offset, before = 0, -1
    while offset != before:
        before = offset
        events, offset = read_events(path, offset)
        yield from events


def latest_events(path: Path) -> list[Event]:
    """The newest events: those in the last 64 KiB of the file; raises as `read_events`."""
    size = path.stat().st_size if path.exists() else 0
    if size <= TAIL:
        return read_events(path)[0]
    start = _bytes_of(path, size - TAIL, TAIL).find(b"\n") + 1
    return read_events(path, size - TAIL + start)[0]


def _bytes_of(path: Path, offset: int, most: int) -> bytes:
    try:
        with open_regular(path, follow_links=False) as file:
            if (size := os.fstat(file.fileno()).st_size) > EVENTS_BYTES:
                raise ValueError(f"it has {size:,} bytes; the limit is {EVENTS_BYTES:,}")
            file.seek(offset)
            return file.read(most)
    except FileNotFoundError:
        return b""


def _parse(line: bytes) -> Event | None:
    try:
        return event_from(json.loads(line))
    except (ValueError, AttributeError, TypeError, OverflowError, RecursionError):
        return None


def _mend(path: Path) -> int:
    """Remove an incomplete last line, and return the number of the last event."""
    newest = max((event.seq for event in all_events(path)), default=0)
    with suppress(FileNotFoundError), path.open("r+b") as file:
        file.truncate(_end_of_lines(file))
    return newest


def _end_of_lines(file: BinaryIO) -> int:
    """The offset after the last line break."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - TAIL)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
