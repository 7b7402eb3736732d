"""The pieces in a SentencePiece model file (tokenizer.model), read without the sentencepiece library.

The file is a protocol buffer; its first field, repeated, is a piece: 1 the text, 2 the score, 3 the type,
whose numbers GGUF took over. See google/sentencepiece, sentencepiece_model.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from ...errors import GgufExportError
from ...untrusted import shown_path
from .folder import read_limited_bytes
from .token_types import TokenType
from .vocabulary import Piece

PIECE, TEXT, SCORE, TYPE = 1, 1, 2, 3
VARINT, FIXED_64, BYTES, FIXED_32 = 0, 1, 2, 5

Field = tuple[int, int | bytes]


def read_pieces(path: Path) -> list[Piece]:
    """The pieces of a tokenizer.model, in the order of their ids.

    Raises:
        GgufExportError: the file is not a SentencePiece model.
    """
    try:
        pieces = [value for number, value in _fields(read_limited_bytes(path)) if number == PIECE]
        return [_piece(id, value) for id, value in enumerate(pieces) if isinstance(value, bytes)]
    except (ValueError, IndexError, struct.error) as error:
        raise GgufExportError(
            f"{shown_path(path)} is not a SentencePiece model: {type(error).__name__}.",
            cause=error,
            untrusted=str(error),
        ) from None


def _piece(id: int, message: bytes) -> Piece:
    text, score, kind = "", 0.0, TokenType.NORMAL
    for number, value in _fields(message):
        if number == TEXT and isinstance(value, bytes):
            text = value.decode("utf-8")
        elif number == SCORE and isinstance(value, bytes):
            (score,) = struct.unpack("<f", value)
        elif number == TYPE and isinstance(value, int):
            kind = TokenType(value)
    # What a text may contain as one token is said by tokenizer.json's added tokens.
    return Piece(id, text, TokenType.NORMAL if kind is TokenType.USER_DEFINED else kind, score)


def _fields(message: bytes) -> Iterator[Field]:
    """Number and value of each field; fixed-size values are left as bytes."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, at = _varint(message, at)
        elif wire in (BYTES, FIXED_32, FIXED_64):
            size, at = _varint(message, at) if wire == BYTES else ({FIXED_32: 4, FIXED_64: 8}[wire], at)
            value, at = message[at : at + size], at + size
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if at > len(message):
            raise ValueError(f"a field ends at byte {at} of {len(message)}")
        yield number, value


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Seven bits a byte, the lowest first; the highest bit says that more follow."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError(f"a number at byte {at} does not end")
