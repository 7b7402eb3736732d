"""From a path to lines of text: decompression, encodings, and limits that keep memory constant."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

from ...errors import (
    BackpropagateError,
    DatasetError,
    DatasetFormatError,
    DatasetNotFoundError,
    DatasetParseError,
    PathForbiddenError,
    TrainingAbortedError,
)
from ...events import ShouldStop, never_stop
from ...files.regular_file import open_permitted
from ...untrusted import shown_path
from .libraries import library

OnRead = Callable[[int], None]
"""Called with the number of bytes after each read of a file."""


def ignore_count(count: int) -> None:
    """For callers who need no progress."""


MAX_ROW_BYTES = 64 * 2**20
"""Limit of a row. A row is held in memory whole; no training example is longer than this."""

BOMB_BYTES = 256 * 2**20
BOMB_RATIO = 200
"""A file that expands to more than `BOMB_BYTES` and more than `BOMB_RATIO` times its size is refused. The
usual ratio for text is about 10."""

HASHED_AT_ONCE = 2**20

GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
ENCODINGS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
TO_UTF_8 = "iconv -f latin1 -t utf-8"
"""A command that converts from the most frequent other encoding."""

UTF_32 = (b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")


class TextLine(NamedTuple):
    """One physical line without its line end, or the reason why it cannot be read."""

    number: int
    text: str
    kind: str | None = None
    reason: str = ""


class CountedFile(io.FileIO):
    """A file that reports the number of bytes of each read."""

    def __init__(self, path: Path, on_read: OnRead) -> None:
        super().__init__(opened(path), "rb")
        self._on_read = on_read

    def readinto(self, buffer: memoryview) -> int | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        count = super().readinto(buffer)
        self._on_read(count or 0)
        return count


class Readable(Protocol):
    """A decompressor: returns at most `size` bytes, and none at the end."""

    def read(self, size: int, /) -> bytes: ...


class ExpandingStream(io.RawIOBase):
    """A decompressed stream that refuses zip bombs and reports damaged data."""

    def __init__(self, raw: BinaryIO, inner: Readable, path: Path, compressed_size: int) -> None:
        self._raw, self._inner, self._path = raw, inner, path
        self._expanded, self._limit = 0, max(BOMB_BYTES, BOMB_RATIO * compressed_size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        try:
            data = self._inner.read(len(buffer))
        except (OSError, EOFError, zlib.error, ValueError) as error:
            raise DatasetParseError(
                f"{shown_path(self._path)} is damaged after {self._expanded:,} expanded bytes.",
                hint="Compress the file again, or use it uncompressed.",
                untrusted=str(error),
            ) from None
        self._expanded += len(data)
        if self._expanded > self._limit:
            raise too_expanded(shown_path(self._path), self._limit)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._raw.close()
        super().close()


def too_expanded(name: str, limit: int) -> DatasetParseError:
    """The error for a file with far more rows than its size can hold."""
    return DatasetParseError(
        f"{name} expands to more than {limit:,} bytes, over {BOMB_RATIO} times its size.",
        hint="If this is intended, decompress it and use the plain file.",
    )


class ZstdReader:
    """Decompresses zstd frames, in steps so small that even a zip bomb fits into memory."""

    STEP = 1024
    """Compressed bytes per step. A block of 4 expands to at most 128 KiB, so a step to at most 32 MiB."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._zstd = library("zstandard", "Reading .zst files")
        self._frame = self._new_frame()
        self._ready = memoryview(b"")
        self._begun = False

    def _new_frame(self) -> Any:
        return self._zstd.ZstdDecompressor(max_window_size=2**27).decompressobj()

    def read(self, size: int, /) -> bytes:
        while not self._ready:
            data = self._raw.read(self.STEP)
            if not data:
                if self._begun:
                    raise EOFError("the last frame is incomplete")
                return b""
            self._ready = memoryview(self._expanded(data))
        result, self._ready = self._ready[:size], self._ready[size:]
        return bytes(result)

    def _expanded(self, data: bytes) -> bytes:
        parts: list[bytes] = []
        while data:
            try:
                parts.append(self._frame.decompress(data))
            except self._zstd.ZstdError as error:
                raise ValueError(str(error)) from None
            self._begun = not self._frame.eof
            data = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame = self._new_frame()
        return b"".join(parts)


def regular_file(path: Path) -> os.stat_result:
    """The stat of a regular file.

    Raises:
        DatasetNotFoundError: the file does not exist.
        DatasetFormatError: it is a pipe, a socket or a device, which could block forever.
        PathForbiddenError: the operating system denies access.
    """
    try:
        found = path.stat()
    except PermissionError:
        raise PathForbiddenError(f"{shown_path(path)} may not be read: permission denied.") from None
    except OSError as error:
        raise DatasetNotFoundError(f"There is no dataset at {shown_path(path)}: {error.strerror}.") from None
    if not stat.S_ISREG(found.st_mode):
        raise DatasetFormatError(
            f"{shown_path(path)} is not a regular file.",
            hint="Use a file, a folder, a pattern such as data/*.jsonl, or a Hub name.",
        )
    return found


def opened(path: Path) -> int:
    """The descriptor of a dataset's file, which was permitted by this real path.

    Raises:
        DatasetError: it is no longer what was permitted, or no regular file.
        PathForbiddenError: the operating system denies access.
    """
    regular_file(path)
    try:
        return open_permitted(path)
    except PermissionError:
        raise PathForbiddenError(f"{shown_path(path)} may not be read: permission denied.") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DatasetError(
            f"{shown_path(path)} changed after it was permitted: {reason}.",
            hint="Give the path of the file itself, and leave it as it is while it is read.",
        ) from None


def file_hash(path: Path, should_stop: ShouldStop = never_stop) -> str:
    """SHA-256 of a file's bytes, before decompression.

    Raises:
        TrainingAbortedError: `should_stop` returned True.
    """
    digest = hashlib.sha256()
    with open(opened(path), "rb", buffering=0) as stream:
        while data := stream.read(HASHED_AT_ONCE):
            if should_stop():
                raise TrainingAbortedError("Stopped while the dataset was hashed.")
            digest.update(data)
    return digest.hexdigest()


def open_bytes(path: Path, on_read: OnRead = ignore_count) -> io.BufferedReader:
    """Opens a file as bytes; decompresses gzip and zstd, recognised by content, not by name."""
    size = regular_file(path).st_size
    raw: io.BufferedReader = io.BufferedReader(CountedFile(path, on_read), 2**18)
    head = raw.peek(4)[:4]
    try:
        if head.startswith(GZIP_MAGIC):
            inner: Readable = gzip.GzipFile(fileobj=raw)
        elif head.startswith(ZSTD_MAGIC):
            inner = ZstdReader(raw)
        elif path.suffix in (".gz", ".zst") and size > 0:
            raise DatasetFormatError(
                f"{shown_path(path)} has the extension {path.suffix} but not that compression.",
                hint="Rename the file.",
            )
        else:
            return raw
    except BackpropagateError:
        raw.close()
        raise
    return io.BufferedReader(ExpandingStream(raw, inner, path, size), 2**18)


def encoding_of(stream: io.BufferedReader, path: Path) -> str:
    """The encoding of a text stream. A byte order mark is consumed.

    Raises:
        DatasetParseError: it is UTF-32, UTF-16 without a byte order mark, or not text.
    """
    head = stream.peek(64)[:64]
    if head.startswith(UTF_32):
        raise DatasetParseError(f"{shown_path(path)} is UTF-32.", hint="Save it as UTF-8.")
    for mark, name in ENCODINGS:
        if head.startswith(mark):
            stream.read(len(mark))
            return name
    if len(head) >= 8 and (head[1::2].count(0) > len(head) // 4 or head[::2].count(0) > len(head) // 4):
        raise DatasetParseError(
            f"{shown_path(path)} begins with NUL bytes: UTF-16 without a byte order mark, or a binary file.",
            hint="Save it as UTF-8.",
        )
    return "utf-8"


def read_lines(path: Path, on_read: OnRead = ignore_count) -> Iterator[TextLine]:
    """The physical lines of a text file; with a reason instead of text if too long or not decodable."""
    with open_bytes(path, on_read) as stream:
        encoding = encoding_of(stream, path)
        lines = _byte_lines(stream) if encoding == "utf-8" else _wide_lines(stream, encoding)
        for number, line in enumerate(lines, start=1):
            if line is None:
                yield TextLine(number, "", "too_long", f"longer than {MAX_ROW_BYTES // 2**20} MiB")
                continue
            try:
                yield TextLine(number, line.decode(encoding).rstrip("\r\n"))
            except UnicodeDecodeError as error:
                yield TextLine(number, "", "encoding", _undecodable(line, error, encoding))


def _undecodable(line: bytes, error: UnicodeDecodeError, encoding: str) -> str:
    return f"byte 0x{line[error.start]:02x} at byte {error.start + 1} is not {encoding.upper()}"


def _byte_lines(stream: BinaryIO) -> Iterator[bytes | None]:
    while line := stream.readline(MAX_ROW_BYTES + 1):
        if len(line) <= MAX_ROW_BYTES:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(2**20)
        yield None


def _wide_lines(stream: BinaryIO, encoding: str) -> Iterator[bytes | None]:
    """Lines of UTF-16. Newline bytes at an odd position belong to two other characters."""
    newline = "\n".encode(encoding)
    rest, too_long = bytearray(), False
    while block := stream.read(2**16):
        # Only the new bytes are searched: a long line would else be searched again for each block.
        searched = max(0, len(rest) // 2 * 2 - 2)
        rest += block
        start = 0
        while (end := _aligned(rest, newline, max(start, searched))) >= 0:
            yield None if too_long else bytes(rest[start : end + 2])
            start, too_long = end + 2, False
        del rest[:start]
        if len(rest) > MAX_ROW_BYTES:
            too_long = True
            del rest[: len(rest) // 2 * 2]
    if rest or too_long:
        yield None if too_long else bytes(rest)


def _aligned(data: bytearray, newline: bytes, start: int) -> int:
    found = data.find(newline, start)
    while found >= 0 and found % 2:
        found = data.find(newline, found + 1)
    return found
