"""The metadata of a GGUF file, read in one go.

gguf.GGUFReader makes several numpy views for each token and merge: 16 s for Llama 3's file, this 0.3 s.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any

from ...errors import GgufExportError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
STRING, ARRAY = 8, 9
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""The struct code of each number type of the GGUF format."""


def read_metadata(path: Path) -> dict[str, Any]:
    """Every key of the file with its value.

    Raises:
        GgufExportError: the file is not a little-endian GGUF file of version 2 or 3.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _Cursor(content).metadata()
    except (KeyError, ValueError, struct.error) as error:
        raise GgufExportError(f"{path} cannot be read as a GGUF file: {error}.", cause=error) from None


class _Cursor:
    def __init__(self, content: mmap.mmap) -> None:
        self._content = content
        self._at = 0

    def metadata(self) -> dict[str, Any]:
        magic, version, _tensors, keys = self._unpack("<4sIQQ")
        if magic != MAGIC or version not in VERSIONS:
            raise ValueError(f"it begins with {magic!r}, version {version}")
        return {self._string(): self._value(self._number("I")) for _ in range(keys)}

    def _value(self, kind: int) -> Any:
        if kind == STRING:
            return self._string()
        if kind == ARRAY:
            return self._array(self._number("I"), self._number("Q"))
        return self._number(NUMBERS[kind])

    def _array(self, kind: int, length: int) -> list[Any]:
        if kind in NUMBERS:
            return list(self._unpack(f"<{length}{NUMBERS[kind]}"))
        return [self._value(kind) for _ in range(length)]

    def _string(self) -> str:
        start = self._at + 8
        self._at = start + self._number("Q")
        if self._at > len(self._content):
            raise ValueError(f"a text ends at byte {self._at} of {len(self._content)}")
        return self._content[start : self._at].decode("utf-8", errors="surrogateescape")

    def _number(self, code: str) -> Any:
        return self._unpack(f"<{code}")[0]

    def _unpack(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from(form, self._content, self._at)
        self._at += struct.calcsize(form)
        return values
