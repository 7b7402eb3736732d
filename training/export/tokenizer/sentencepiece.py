"""SentencePiece-like tokenizers: BPE on characters, with a token for each byte as a last resort.

tokenizer.json has them as a list of merges; llama.cpp wants a score for each token and merges the pair
whose token has the highest score, leftmost first. Both are the same tokenizer if all ways to put a token
together stand side by side in the list of merges, as they do when it was made from a SentencePiece model.
"""

from __future__ import annotations

import json

from ...errors import GgufExportError
from .folder import TokenizerFolder
from .merges import merge_pairs
from .rules import OTHER_EXPORT, Rule, Rules
from .sentencepiece_model import read_pieces
from .token_types import TokenType
from .vocabulary import Piece

BYTE_TOKENS = {f"<0x{byte:02X}>": byte for byte in range(256)}

PREPEND: Rule = {"type": "Prepend", "prepend": "▁"}
ESCAPE: Rule = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
NO_SPACE_LEFT: Rule = {
    "type": "Split",
    "pattern": {"String": " "},
    "behavior": "MergedWithPrevious",
    "invert": False,
}
METASPACE: Rule = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": False}

ADDS_SPACE_PREFIX: list[tuple[Rules, bool]] = [
    (Rules([PREPEND, ESCAPE], [], False), True),
    (Rules([], [METASPACE], False), True),
    (Rules([], [METASPACE | {"prepend_scheme": "first"}], False), True),
    (Rules([], [METASPACE | {"prepend_scheme": "never"}], False), False),
    (Rules([ESCAPE], [], False), False),
    (Rules([ESCAPE], [NO_SPACE_LEFT], False), False),
]
"""Whether a space is put before a text, for each known way of splitting."""


def adds_space_prefix(rules: Rules) -> bool:
    """Whether a space is put before a text.

    Raises:
        GgufExportError: the rules are not known.
    """
    for known, prefix in ADDS_SPACE_PREFIX:
        if known == rules:
            return prefix
    raise GgufExportError(
        "The tokenizer treats spaces by rules that llama.cpp is not known to follow: "
        f"{json.dumps(rules._asdict(), ensure_ascii=False)}.",
        hint=OTHER_EXPORT,
    )


def sentencepiece_pieces(folder: TokenizerFolder) -> list[Piece]:
    """The model's own tokens with type and score.

    The scores are those of tokenizer.model where it lies beside tokenizer.json and has the same pieces,
    else they are derived from the merges.

    Raises:
        GgufExportError: a byte has no token, or the merges cannot be expressed as scores.
    """
    missing = [token for token in BYTE_TOKENS if token not in folder.vocab]
    if missing:
        raise GgufExportError(
            f"The tokenizer in {folder.path} has no token for {len(missing)} of 256 bytes; "
            f"{missing[0]} is the first.",
            hint=OTHER_EXPORT,
        )
    scores = _derived_scores(folder)
    stored = _stored_pieces(folder)
    return stored or [_piece(folder, text, scores.get(text, 0.0)) for text in folder.vocab]


def _piece(folder: TokenizerFolder, text: str, score: float) -> Piece:
    id = folder.vocab[text]
    if text == folder.model.get("unk_token"):
        return Piece(id, text, TokenType.UNKNOWN)
    return Piece(id, text, TokenType.BYTE) if text in BYTE_TOKENS else Piece(id, text, score=score)


def _derived_scores(folder: TokenizerFolder) -> dict[str, float]:
    """Scores that fall in the order of the merges.

    SentencePiece numbers its pieces in this order and gives each its place, negated, as score; where ids
    follow the merges these are its scores again.
    """
    made = _tokens_in_order_of_merging(folder)
    ids = [folder.vocab[token] for token in made]
    if ids == sorted(ids):
        plain = {id: text for text, id in folder.vocab.items() if _is_plain(folder, text)}
        first = min(plain, default=0)
        return {text: float(first - id) for id, text in plain.items()}
    return {token: -float(place) for place, token in enumerate(made)}


def _tokens_in_order_of_merging(folder: TokenizerFolder) -> list[str]:
    pairs = set[tuple[str, str]]()
    made: dict[str, None] = {}
    last = None
    for left, right in merge_pairs(folder):
        token = left + right
        if token in made and token != last:
            raise _no_scores(folder, f"the merges that make {token!r} do not stand together")
        pairs.add((left, right))
        made[token] = None
        last = token
    for token in folder.vocab:
        for at in range(1, len(token)):
            pair = token[:at], token[at:]
            if pair[0] in folder.vocab and pair[1] in folder.vocab and pair not in pairs:
                raise _no_scores(folder, f"{pair[0]!r} and {pair[1]!r} are not merged into {token!r}")
    return list(made)


def _stored_pieces(folder: TokenizerFolder) -> list[Piece] | None:
    """The pieces of tokenizer.model, if there is one and tokenizer.json has the same."""
    path = folder.path / "tokenizer.model"
    pieces = read_pieces(path) if path.is_file() else []
    return pieces if pieces and {piece.text: piece.id for piece in pieces} == folder.vocab else None


def _is_plain(folder: TokenizerFolder, text: str) -> bool:
    return text not in BYTE_TOKENS and folder.vocab[text] not in folder.added_tokens


def _no_scores(folder: TokenizerFolder, why: str) -> GgufExportError:
    return GgufExportError(
        f"The merges of the tokenizer in {folder.path} cannot be written as scores: {why}.",
        hint=OTHER_EXPORT,
    )
