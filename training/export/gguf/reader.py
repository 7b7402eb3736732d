"""The header of a GGUF file: its metadata, and the position of each tensor.

gguf.GGUFReader makes several arrays for each token and merge, which takes seconds for a large vocabulary.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import GgufExportError
from ...untrusted import shown_path

MAGIC = b"GGUF"
VERSIONS = (2, 3)
STRING, ARRAY = 8, 9
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Number of a type → its letter in `struct`."""

ALIGNMENT_KEY = "general.alignment"
DEFAULT_ALIGNMENT = 32
MOST_ENTRIES = 100_000


class GgufFormatError(ValueError):
    """The file is not a GGUF file, or is truncated."""


@dataclass(frozen=True)
class HeaderTensor:
    """Position of a tensor: `shape` as in PyTorch, `kind` as GGUF's number, `start` in bytes of the file."""

    name: str
    shape: tuple[int, ...]
    kind: int
    start: int


@dataclass(frozen=True)
class GgufHeader:
    """All that comes before the data."""

    metadata: dict[str, Any]
    tensors: list[HeaderTensor]


def read_gguf_header(path: Path, arrays: Collection[str] | None = ()) -> GgufHeader:
    """The header of a GGUF file; its data is not read.

    Args:
        arrays: keys of the lists that are wanted, others are left out: they may have hundreds of thousands of
            items. None: all.

    Raises:
        GgufFormatError: it is not a whole GGUF header of a known version.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        if path.stat().st_size < 24:
            raise GgufFormatError("it is too short for a GGUF file")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Reader(data, arrays).header()


class _Reader:
    """Reads the bytes in order, never past their end."""

    def __init__(self, data: mmap.mmap, arrays: Collection[str] | None) -> None:
        self._data = data
        self._arrays = arrays
        self._at = 0

    def header(self) -> GgufHeader:
        if self._take(4) != MAGIC:
            raise GgufFormatError("it does not start with the bytes GGUF")
        version, tensors, keys = self._unpack("IQQ")
        if version not in VERSIONS:
            raise GgufFormatError(f"it is GGUF version {version}; supported are 2 and 3")
        if max(tensors, keys) > MOST_ENTRIES:
            raise GgufFormatError(f"its header declares {keys:,} metadata keys and {tensors:,} tensors")
        metadata = self._metadata(keys)
        infos = [self._tensor() for _ in range(tensors)]
        alignment = int(metadata.get(ALIGNMENT_KEY, DEFAULT_ALIGNMENT))
        data_start = -(-self._at // alignment) * alignment
        placed = [HeaderTensor(t.name, t.shape, t.kind, data_start + t.start) for t in infos]
        return GgufHeader(metadata, placed)

    def _metadata(self, keys: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for _ in range(keys):
            key = self._string()
            (kind,) = self._unpack("I")
            value = self._value(kind, self._arrays is None or key in self._arrays)
            if value is not None:
                found[key] = value
        return found

    def _tensor(self) -> HeaderTensor:
        name = self._string()
        (dimensions,) = self._unpack("I")
        sizes = self._unpack(f"{min(dimensions, 8)}Q")
        kind, start = self._unpack("IQ")
        return HeaderTensor(name, tuple(reversed(sizes)), kind, start)

    def _value(self, kind: int, wanted: bool) -> Any:
        if kind == STRING:
            return self._string()
        if kind == ARRAY:
            return self._array(wanted)
        return self._unpack(self._letter(kind))[0]

    def _array(self, wanted: bool) -> list[Any] | None:
        kind, count = self._unpack("IQ")
        if kind == ARRAY:
            items = [self._array(wanted) for _ in range(self._possible(count, 12))]
        elif kind != STRING:
            letter = self._letter(kind)
            raw = self._take(count * struct.calcsize(f"<{letter}"))
            items = list(struct.unpack(f"<{count}{letter}", raw)) if wanted else []
        elif wanted:
            items = [self._string() for _ in range(self._possible(count, 8))]
        else:
            items = []
            self._skip_strings(self._possible(count, 8))
        return items if wanted else None

    def _skip_strings(self, count: int) -> None:
        at, data, end = self._at, self._data, len(self._data)
        for _ in range(count):
            if at + 8 > end:
                break
            at += 8 + int.from_bytes(data[at : at + 8], "little")
        self._at = at
        self._take(0)

    def _possible(self, count: int, least_bytes: int) -> int:
        if count * least_bytes > len(self._data) - self._at:
            raise GgufFormatError(f"it is truncated in a list of {count:,} items")
        return count

    def _string(self) -> str:
        return self._take(self._unpack("Q")[0]).decode("utf-8", "surrogateescape")

    def _letter(self, kind: int) -> str:
        if kind not in SCALARS:
            raise GgufFormatError(f"it has a value of the unknown type {kind}")
        return SCALARS[kind]

    def _unpack(self, letters: str) -> tuple[Any, ...]:
        return struct.unpack(f"<{letters}", self._take(struct.calcsize(f"<{letters}")))

    def _take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise GgufFormatError(f"it is truncated: {end:,} bytes are needed and it has {len(self._data):,}")
        taken = self._data[self._at : end]
        self._at = end
        return taken


def read_metadata(path: Path) -> dict[str, Any]:
    """All metadata of a file, lists included.

    Raises:
        GgufExportError: it cannot be read as a GGUF file.
    """
    try:
        return read_gguf_header(path, arrays=None).metadata
    except (GgufFormatError, OSError) as error:
        raise GgufExportError(
            f"{shown_path(path)} cannot be read as a GGUF file: {type(error).__name__}.",
            cause=error,
            untrusted=str(error),
        ) from error
