"""A small picture made of pixels, and its PNG: enough for a chart, without a library for pictures."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from itertools import pairwise

Color = int
PALETTE = ((255, 255, 255), (32, 36, 42), (208, 214, 222), (11, 98, 196), (176, 80, 0))
WHITE, INK, GRID, BLUE, ORANGE = range(len(PALETTE))

GLYPH_WIDTH, GLYPH_HEIGHT = 3, 5
GLYPHS = {
    "0": "75557", "1": "26227", "2": "71747", "3": "71717", "4": "55711", "5": "74717", "6": "74757",
    "7": "71122", "8": "75757", "9": "75717", ".": "00002", "-": "00700", "k": "45655", "M": "57755",
    "e": "07747", "l": "22223", "o": "07557", "s": "34216", "t": "27223", "p": "07574", "i": "20222",
    "n": "06555", "r": "06544", "a": "03757", "g": "07571", "h": "44755", "d": "11757", "u": "05557",
    " ": "00000",
}  # fmt: skip
"""Each letter as five rows of three pixels, one octal digit a row."""


class Canvas:
    """Pixels with colours of `PALETTE`; what lies outside is left out."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._rows = [bytearray(width) for _ in range(height)]

    def rectangle(self, x: float, y: float, width: int, height: int, color: Color) -> None:
        left, top = round(x), round(y)
        begin, end = max(0, left), min(self.width, left + width)
        for row in self._rows[max(0, top) : max(0, top + height)]:
            if end > begin:
                row[begin:end] = bytes([color]) * (end - begin)

    def line(self, points: Sequence[tuple[float, float]], color: Color, thickness: int = 2) -> None:
        """Straight lines from point to point."""
        for (x0, y0), (x1, y1) in pairwise(points):
            steps = max(1, round(max(abs(x1 - x0), abs(y1 - y0))))
            for step in range(steps + 1):
                share = step / steps
                self.rectangle(x0 + (x1 - x0) * share, y0 + (y1 - y0) * share, thickness, thickness, color)

    def square(self, x: float, y: float, color: Color, size: int = 7) -> None:
        """A square around a point."""
        self.rectangle(x - size // 2, y - size // 2, size, size, color)

    def text(self, x: float, y: float, text: str, color: Color = INK, scale: int = 2) -> None:
        """A text from its top left corner on."""
        for index, letter in enumerate(text):
            left = x + index * (GLYPH_WIDTH + 1) * scale
            for row, bits in enumerate(GLYPHS[letter]):
                for column in range(GLYPH_WIDTH):
                    if int(bits, 8) >> (GLYPH_WIDTH - 1 - column) & 1:
                        self.rectangle(left + column * scale, y + row * scale, scale, scale, color)

    def png(self) -> bytes:
        header = struct.pack(">IIBBBBB", self.width, self.height, 8, 3, 0, 0, 0)  # 8 bits, palette
        pixels = b"".join(b"\0" + row for row in self._rows)
        chunks = [
            (b"IHDR", header),
            (b"PLTE", bytes(part for color in PALETTE for part in color)),
            (b"IDAT", zlib.compress(pixels, 9)),
            (b"IEND", b""),
        ]
        return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, data) for name, data in chunks)


def text_width(text: str, scale: int = 2) -> int:
    return (len(text) * (GLYPH_WIDTH + 1) - 1) * scale


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
