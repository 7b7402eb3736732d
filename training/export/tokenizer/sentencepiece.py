"""SentencePiece-like tokenizers: BPE on characters, with a token for each byte as a last resort.

tokenizer.json has them as a list of merges; llama.cpp wants a score for each token and merges the pair
whose token has the highest score, leftmost first. Both are the same tokenizer if all ways to put a token
together stand side by side in the list of merges, as they do when it was made from a SentencePiece model.
"""

from __future__ import annotations

import json
from itertools import pairwise

from ...errors import GgufExportError
from ...untrusted import quoted, shown_path
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
        "No llama.cpp equivalent is known for the tokenizer's rules for spaces.",
        untrusted=json.dumps(rules._asdict(), ensure_ascii=False),
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
            f"The tokenizer in {shown_path(folder.path)} has no token for {len(missing)} of 256 bytes, "
            f"first {missing[0]}.",
            hint=OTHER_EXPORT,
        )
    made = _tokens_in_order_of_merging(folder)
    scores = {token: -float(place) for place, token in enumerate(made)}
    return _stored_pieces(folder, made) or [
        _piece(folder, text, scores.get(text, 0.0)) for text in folder.vocab
    ]


def _piece(folder: TokenizerFolder, text: str, score: float) -> Piece:
    id = folder.vocab[text]
    if text == folder.model.get("unk_token"):
        return Piece(id, text, TokenType.UNKNOWN)
    return Piece(id, text, TokenType.BYTE) if text in BYTE_TOKENS else Piece(id, text, score=score)


def _tokens_in_order_of_merging(folder: TokenizerFolder) -> list[str]:
    """The tokens that are put together of others, first those that are merged first.

    Raises:
        GgufExportError: the order of merges is not an order of tokens, or a way to make a token is missing.
    """
    pairs = set[tuple[str, str]]()
    made: dict[str, None] = {}
    last = None
    for left, right in merge_pairs(folder):
        token = left + right
        # A run of one character grows by that character, in whichever order its ways stand.
        if token in made and token != last and len(set(token)) > 1:
            raise _no_scores(folder, f"the merges that make {quoted(token)} are not adjacent")
        pairs.add((left, right))
        made[token] = None
        last = token
    _check_all_ways(folder, pairs)
    return list(made)


def _check_all_ways(folder: TokenizerFolder, pairs: set[tuple[str, str]]) -> None:
    """llama.cpp merges whatever two tokens make a third; so must the list."""
    plain = folder.vocab.keys() - {token.content for token in folder.added_tokens.values()}
    for token in plain:
        for at in range(1, len(token)):
            left, right = token[:at], token[at:]
            if left in plain and right in plain and (left, right) not in pairs:
                raise _no_scores(
                    folder, f"{quoted(left)} and {quoted(right)} are not merged into {quoted(token)}"
                )


def _stored_pieces(folder: TokenizerFolder, made: list[str]) -> list[Piece] | None:
    """The pieces of tokenizer.model, if it is there and the same tokenizer as tokenizer.json."""
    path = folder.path / "tokenizer.model"
    pieces = read_pieces(path) if path.is_file() else []
    if not pieces or {piece.text: piece.id for piece in pieces} != folder.vocab:
        return None
    scores = {piece.text: piece.score for piece in pieces}
    return pieces if all(scores[token] >= scores[next] for token, next in pairwise(made)) else None


def _no_scores(folder: TokenizerFolder, why: str) -> GgufExportError:
    return GgufExportError(
        f"The merges of the tokenizer in {shown_path(folder.path)} cannot be written as scores: {why}.",
        hint=OTHER_EXPORT,
    )
