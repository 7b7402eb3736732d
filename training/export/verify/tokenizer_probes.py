"""Texts that similar tokenizers split differently; the same texts for the same seed."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable, Sequence

from .probe_parts import (
    CODE,
    CONTRACTIONS,
    CONTROLS,
    EMOJI,
    INVISIBLE,
    LINES,
    LOOKALIKES,
    MARKS,
    NUMBERS,
    ODD,
    REPEATED,
    SCRIPTS,
    SPACES,
    SYMBOLS,
    WORDS,
)

SEED = 20_240_229

Part = Callable[[random.Random], str]


def probe_texts(count: int = 3000, seed: int = SEED, tokens: Sequence[str] = ()) -> list[str]:
    """`count` different texts, none empty.

    Args:
        tokens: added tokens of the tokenizer that is checked; they appear among the other parts.
    """
    chance = random.Random(seed)
    parts = [*PARTS, _from(tokens, 2)] if tokens else PARTS
    found = dict.fromkeys([*EMOJI, *ODD, *LINES, *CONTRACTIONS, *WORDS, *CODE, *LOOKALIKES, *tokens])
    while len(found) < count:
        found[_text(chance, parts)] = None
    return list(found)[:count]


def _text(chance: random.Random, parts: Sequence[Part]) -> str:
    """Some parts side by side, with or without spaces; one kind alone as often as a mixture."""
    kinds = [chance.choice(parts)] if chance.random() < 0.3 else parts
    between = chance.choice(["", "", " ", " ", "  ", "\n"])
    text = between.join(chance.choice(kinds)(chance) for _ in range(chance.randint(1, 8)))
    text = chance.choice(["", "", "", " ", "  ", "\n"]) + text + chance.choice(["", "", "", " ", "   ", "\n"])
    return unicodedata.normalize(chance.choice(["NFC", "NFD"]), text) if chance.random() < 0.1 else text


def _letters(chance: random.Random) -> str:
    first, last = chance.choice(SCRIPTS)
    return "".join(chr(chance.randint(first, last)) for _ in range(chance.randint(1, 9)))


def _marked(chance: random.Random) -> str:
    first, last = chance.choice(MARKS)
    return "".join(
        letter + "".join(chr(chance.randint(first, last)) for _ in range(chance.randint(0, 2)))
        for letter in _letters(chance)
    )


def _from(choices: Sequence[str], most: int) -> Part:
    return lambda chance: "".join(chance.choice(choices) for _ in range(chance.randint(1, most)))


def _any_character(chance: random.Random) -> str:
    first, last = chance.choice([(0x20, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x1FFFF)])
    return chr(chance.randint(first, last))


def _repeated(chance: random.Random) -> str:
    return chance.choice(REPEATED) * chance.choice([2, 3, 7, 16, 31, 33, 70, 500])


def _odd_case(chance: random.Random) -> str:
    return "".join(chance.choice([letter.upper(), letter.lower()]) for letter in chance.choice(WORDS))


PARTS: list[Part] = [
    _letters,
    _marked,
    _repeated,
    _odd_case,
    _any_character,
    _from(WORDS, 3),
    _from("0123456789", 12),
    _from(NUMBERS, 5),
    _from(SPACES, 6),
    _from(LINES, 4),
    _from(INVISIBLE, 3),
    _from(CONTROLS, 3),
    _from(ODD, 2),
    _from(EMOJI, 3),
    _from(SYMBOLS, 6),
    _from(CODE, 1),
    _from(LOOKALIKES, 2),
    lambda chance: chance.choice(WORDS) + chance.choice(CONTRACTIONS),
]
