"""Tokenising by remembering: text repeats its words, so most of it need not be tokenised again.

A byte-level BPE tokenizer cuts text into pre-tokens and merges within each, so the tokens of a text are those
of its segments, one after the other, if every cut lies between two pre-tokens. The cuts here: around added
tokens, and before a single space between two other characters. That those are borders of pre-tokens is asked
of the tokenizer for every pair of kinds of characters, once; a tokenizer for which it does not hold, or which
is of another kind, is used as it is. The tokens are the same.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Sequence
from itertools import chain, product
from typing import Any, NamedTuple

CUT = re.compile(r"(?<=\S)(?= \S)")
JOINABLE = re.compile(r" \S(?:.*\S)?", re.DOTALL)
"""A segment before and behind which a cut may be."""

MOST_REMEMBERED = 200_000
"""Segments; some 50 MB."""

KINDS_OF_CHARACTERS = "aZzé0 9.,;:!?'\"`-_/\\|()[]{}<>@#$%^&*+=~ß東ア한ءद́🙂\u200d\u00ad\x01"
"""One or more of each kind that a pre-tokenizer may treat in its own way."""


class Tokens(NamedTuple):
    """A text's tokens, and for each asked character the first token that begins at it or later."""

    input_ids: list[int]
    at: list[int]


class Offsets:
    """Tokenises texts with any tokenizer, in threads of its own on all cores.

    Args:
        backend: a `tokenizers.Tokenizer` whose offsets are not trimmed.
    """

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def encode(self, texts: Sequence[str], asked: Sequence[Sequence[int]]) -> list[Tokens]:
        """The tokens of each text.

        Args:
            asked: for each text, characters in ascending order.
        """
        encodings = self._backend.encode_batch(texts, add_special_tokens=False)
        return [
            Tokens(encoding.ids, _first_from(encoding.offsets, characters) if characters else [])
            for encoding, characters in zip(encodings, asked, strict=True)
        ]


def _first_from(offsets: Sequence[tuple[int, int]], characters: Sequence[int]) -> list[int]:
    starts = [start for start, _ in offsets]
    return [bisect_left(starts, character) for character in characters]


class Segments:
    """Tokenises texts with a tokenizer for which `can_be_cut` holds.

    Args:
        backend: a `tokenizers.Tokenizer` whose offsets are not trimmed.
        added: its added tokens, control tokens among them, as `AddedToken`s.
    """

    def __init__(self, backend: Any, added: Sequence[Any]) -> None:
        self._backend = backend
        longest = sorted((token.content for token in added), key=len, reverse=True)
        self._split = re.compile(f"({'|'.join(map(re.escape, longest))})") if added else re.compile("(?!)")
        self._known: dict[str, tuple[int, ...]] = {}
        self._starts: dict[str, list[int]] = {}

    def encode(self, texts: Sequence[str], asked: Sequence[Sequence[int]]) -> list[Tokens]:
        """The tokens of each text.

        Args:
            asked: for each text, characters in ascending order.
        """
        if len(self._known) > MOST_REMEMBERED:
            self._known.clear()
            self._starts.clear()
        cut = [self._cut(text) for text in texts]
        self._learn({segment for segments in cut for segment in segments if segment not in self._known})
        return [self._join(segments, characters) for segments, characters in zip(cut, asked, strict=True)]

    def _cut(self, text: str) -> list[str]:
        pieces = self._split.split(text)
        segments: list[str] = []
        for number, piece in enumerate(pieces):
            if number % 2:
                segments.append(piece)
            elif piece:
                segments += CUT.split(piece)
        return segments

    def _learn(self, segments: set[str]) -> None:
        """Tokenises the segments that are new.

        Those that begin and end where a cut may be are tokenised as one text, which is many times faster.
        """
        together = [segment for segment in segments if JOINABLE.fullmatch(segment)]
        if together:
            self._learn_joined(together)
        apart = [segment for segment in segments if segment not in self._known]
        encodings = self._backend.encode_batch_fast(apart, add_special_tokens=False)
        for segment, encoding in zip(apart, encodings, strict=True):
            self._known[segment] = tuple(encoding.ids)

    def _learn_joined(self, segments: list[str]) -> None:
        encoding = self._backend.encode("x" + "".join(segments), add_special_tokens=False)
        input_ids, starts = encoding.ids, [start for start, _ in encoding.offsets]
        character, token = 1, bisect_left(starts, 1)
        for segment in segments:
            character += len(segment)
            end = bisect_left(starts, character, token)
            self._known[segment] = tuple(input_ids[token:end])
            token = end

    def _join(self, segments: list[str], asked: Sequence[int]) -> Tokens:
        known = self._known
        input_ids = list(chain.from_iterable([known[segment] for segment in segments]))
        return Tokens(input_ids, self._places(segments, asked) if asked else [])

    def _places(self, segments: list[str], asked: Sequence[int]) -> list[int]:
        """For each asked character the first token that begins at it or later."""
        places: list[int] = []
        character = token = 0
        waiting = iter(asked)
        goal = next(waiting, None)
        for segment in segments:
            end = character + len(segment)
            while goal is not None and goal < end:
                places.append(token + self._tokens_before(segment, goal - character))
                goal = next(waiting, None)
            if goal is None:
                return places
            character = end
            token += len(self._known[segment])
        return places + [token] * (len(asked) - len(places))

    def _tokens_before(self, segment: str, character: int) -> int:
        """How many of a segment's tokens begin before one of its characters."""
        if character == 0:
            return 0
        starts = self._starts.get(segment)
        if starts is None:
            offsets = self._backend.encode(segment, add_special_tokens=False).offsets
            starts = self._starts[segment] = [start for start, _ in offsets]
        return sum(1 for start in starts if start < character)


def can_be_cut(backend: Any, added_tokens: Sequence[Any]) -> bool:
    """Whether a text's tokens are those of its segments.

    Args:
        backend: a `tokenizers.Tokenizer`.
        added_tokens: its added tokens, as `AddedToken`s.
    """
    parts: dict[str, Any] = json.loads(backend.to_str())
    model: dict[str, Any] = parts["model"]
    normalizer: dict[str, Any] = parts["normalizer"] or {}
    return (
        model["type"] == "BPE"
        and not model.get("dropout")
        and normalizer.get("type", "NFC") == "NFC"
        and _is_byte_level(parts["pre_tokenizer"] or {})
        and all(_is_plain(token) for token in added_tokens)
        and _cuts_are_borders(backend)
    )


def _is_byte_level(pre_tokenizer: dict[str, Any]) -> bool:
    parts: list[dict[str, Any]] = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    kinds = {part.get("type") for part in parts}
    prefixes = any(part.get("add_prefix_space") for part in parts)
    return "ByteLevel" in kinds and not prefixes and kinds <= {"ByteLevel", "Split", "Digits", "Punctuation"}


def _is_plain(token: Any) -> bool:
    """Whether an added token is found wherever its text stands, and takes nothing of its neighbours."""
    return not (token.lstrip or token.rstrip or token.single_word or re.search(r"\s", token.content))


def _cuts_are_borders(backend: Any) -> bool:
    letters = [letter for letter in KINDS_OF_CHARACTERS if not letter.isspace()]
    for before, after in product(letters, letters):
        text = f"n{before} {after}n"
        borders = {start for _, (start, _) in backend.pre_tokenizer.pre_tokenize_str(text)}
        if text.index(" ", 1) not in borders:
            return False
    return True
