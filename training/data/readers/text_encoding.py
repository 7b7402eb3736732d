"""The encoding of a text file: its byte order mark, the one that the user names, or UTF-8.

Windows-1252 is recognised but not assumed: almost any bytes are Windows-1252, and text in a wrong encoding
would be trained on.
"""

from __future__ import annotations

import codecs
import io
from pathlib import Path
from typing import BinaryIO

from ...errors import DatasetParseError
from ...untrusted import shown_path

BYTE_ORDER_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
UTF_32 = (b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")

TO_UTF_8 = "iconv -f latin1 -t utf-8"
"""A command that converts from the most frequent other encoding."""
SAVE_AS_UTF_8 = f"save the file as UTF-8 ({TO_UTF_8}), or name the encoding of a text file (encoding=…)"
AS_WINDOWS_1252 = 'encoding="cp1252"'

BLOCK = 2**20
LOOKED_AT = 64 * BLOCK
"""Bytes of a file that are looked at to guess its encoding."""


def encoding_of(stream: io.BufferedReader, path: Path, encoding: str | None = None) -> str:
    """The encoding of a text stream. A byte order mark is consumed.

    Args:
        encoding: of a stream without byte order mark; None: UTF-8.

    Raises:
        DatasetParseError: it is UTF-32, UTF-16 without a byte order mark, or not text.
    """
    head = stream.peek(64)[:64]
    if head.startswith(UTF_32):
        raise DatasetParseError(f"{shown_path(path)} is UTF-32.", hint="Save it as UTF-8.")
    for mark, name in BYTE_ORDER_MARKS:
        if head.startswith(mark):
            stream.read(len(mark))
            return name
    if len(head) >= 8 and (head[1::2].count(0) > len(head) // 4 or head[::2].count(0) > len(head) // 4):
        raise DatasetParseError(
            f"{shown_path(path)} begins with NUL bytes: UTF-16 without a byte order mark, or a binary file.",
            hint="Save it as UTF-8.",
        )
    return encoding or "utf-8"


def is_utf_8(stream: BinaryIO) -> bool:
    """Whether a stream is UTF-8. Of a large one, other characters than ASCII are looked for first."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    read, ascii_only = 0, True
    try:
        while block := stream.read(BLOCK):
            decoder.decode(block)
            read, ascii_only = read + len(block), ascii_only and block.isascii()
            if read >= LOOKED_AT and not ascii_only:
                return True
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def is_windows_1252(stream: io.BufferedReader) -> bool:
    """Whether a stream is probably Windows-1252: it has a meaning for each byte, and no line is UTF-8."""
    if stream.peek(3).startswith(codecs.BOM_UTF8):
        return False
    read = 0
    while read < LOOKED_AT and (line := stream.readline(BLOCK)):
        read += len(line)
        if not (line.isascii() or _is_windows_1252(line)):
            return False
    return True


def _is_windows_1252(line: bytes) -> bool:
    return b"\0" not in line and decodes(line, "cp1252") and not decodes(line, "utf-8")


def decodes(line: bytes, encoding: str) -> bool:
    """Whether bytes are text in this encoding."""
    try:
        line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def encoding_hint(kind: str) -> str:
    """What to do about a file with bytes of another encoding, as a sentence; `kind` as in findings."""
    if kind == "windows_1252":
        return f"Set {AS_WINDOWS_1252}: the file is probably Windows-1252, as Excel saves it."
    return f"{SAVE_AS_UTF_8[0].upper()}{SAVE_AS_UTF_8[1:]}."
