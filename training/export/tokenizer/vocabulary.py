"""The list of tokens in a GGUF file: one text, type and score for each row of the embedding."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ...errors import GgufExportError
from ...untrusted import quoted, shown_path
from .folder import TokenizerFolder
from .token_types import TokenType, added_token, padding

ADDED_SCORE = -1000.0
PADDING_SCORE = -10_000.0


class Vocabulary(NamedTuple):
    """Tokens by id, as they stand in a GGUF file."""

    tokens: list[str]
    types: list[TokenType]
    scores: list[float]
    """How early a token is merged, higher first; only SentencePiece-like tokenizers have any."""


class Piece(NamedTuple):
    """A token of the model's own vocabulary."""

    id: int
    text: str
    type: TokenType = TokenType.NORMAL
    score: float = 0.0


def vocabulary(folder: TokenizerFolder, pieces: Iterable[Piece], rows: int) -> Vocabulary:
    """The pieces and the folder's added tokens in `rows` rows; what neither uses is padding.

    Raises:
        GgufExportError: an id lies beyond the rows, or two tokens claim one id or one text.
    """
    found: dict[int, Piece] = {}
    for piece in pieces:
        if piece.id in found:
            raise _clash(
                folder, f"{quoted(found[piece.id].text)} and {quoted(piece.text)} both have the id {piece.id}"
            )
        found[piece.id] = piece
    for id, token in folder.added_tokens.items():
        if id in found and found[id].text != token.content:
            raise _clash(
                folder, f"{quoted(found[id].text)} and {quoted(token.content)} both have the id {id}"
            )
        found[id] = Piece(id, *added_token(token), ADDED_SCORE)
    _check_range(folder, found, rows)
    listed = [found.get(id) or Piece(id, padding(id), TokenType.UNUSED, PADDING_SCORE) for id in range(rows)]
    _check_texts(folder, listed)
    _, tokens, types, scores = (list(column) for column in zip(*listed, strict=True))
    return Vocabulary(tokens, types, scores)


def byte_level_pieces(folder: TokenizerFolder) -> list[Piece]:
    """The pieces of a tokenizer whose pieces are written in the byte-level alphabet."""
    return [Piece(id, text) for text, id in folder.vocab.items()]


def _check_range(folder: TokenizerFolder, found: dict[int, Piece], rows: int) -> None:
    highest = max(found, default=-1)
    if highest >= rows:
        raise GgufExportError(
            f"{shown_path(folder.path)} has a token {quoted(found[highest].text)} with the id {highest}, "
            f"but the embedding has {rows} rows (ids 0 to {rows - 1}).",
            hint="Resize the model's embedding to the tokenizer, or export with the base model's tokenizer.",
        )


def _check_texts(folder: TokenizerFolder, pieces: list[Piece]) -> None:
    """llama.cpp finds a token by its text, so a text may stand there once."""
    ids: dict[str, int] = {}
    for piece in pieces:
        other = ids.setdefault(piece.text, piece.id)
        if other != piece.id:
            raise _clash(folder, f"the ids {other} and {piece.id} both have the text {quoted(piece.text)}")


def _clash(folder: TokenizerFolder, what: str) -> GgufExportError:
    return GgufExportError(
        f"The tokenizer in {shown_path(folder.path)} is ambiguous: {what}.",
        hint="Train and export with the unchanged tokenizer of the base model.",
    )
