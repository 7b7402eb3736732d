"""llama.cpp's names of pre-tokenizers, for byte-level BPE tokenizers.

llama.cpp's own converter finds the name by a hash over the token ids of one text, which changes with every
added token. Here the name follows from the rules; rules that are not exactly known are refused.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from ...errors import GgufExportError
from .rules import OTHER_EXPORT, Rule, Rules, split_by

BYTES: Rule = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
WORDS_AND_BYTES: Rule = BYTES | {"use_regex": True}
EACH_DIGIT: Rule = {"type": "Digits", "individual_digits": True}
NFC: Rule = {"type": "NFC"}

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
LINES_OF_SYMBOLS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
BEFORE_WORD = r"[^\r\n\p{L}\p{N}]?"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
LINES_OF_PATHS = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"

LLAMA_3 = split_by(rf"{CONTRACTIONS}|{BEFORE_WORD}\p{{L}}+|\p{{N}}{{1,3}}|{LINES_OF_SYMBOLS}|{SPACES}")
QWEN_2 = split_by(rf"{CONTRACTIONS}|{BEFORE_WORD}\p{{L}}+|\p{{N}}|{LINES_OF_SYMBOLS}|{SPACES}")
QWEN_3_5 = split_by(
    rf"{CONTRACTIONS}|{BEFORE_WORD}[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{SPACES}"
)
TEKKEN = split_by(
    rf"{BEFORE_WORD}{UPPER}*{LOWER}+|{BEFORE_WORD}{UPPER}+{LOWER}*|\p{{N}}|{LINES_OF_PATHS}|{SPACES}"
)
GPT_4O = split_by(
    rf"{BEFORE_WORD}{UPPER}*{LOWER}+{CONTRACTIONS}?|{BEFORE_WORD}{UPPER}+{LOWER}*{CONTRACTIONS}?"
    rf"|\p{{N}}{{1,3}}|{LINES_OF_PATHS}|{SPACES}"
)

DIGITS_IN_THREES = split_by(r"\p{N}{1,3}")
KANA_AND_HAN = split_by("[一-龥\u3040-\u309f\u30a0-\u30ff]+")
DEEPSEEK_3 = split_by(
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class PreTokenizer(NamedTuple):
    """A pre-tokenizer that llama.cpp implements."""

    name: str
    rules: Rules


# Two families stand here with both values of ignore_merges: in theirs, merges lead to every token anyway.
PRE_TOKENIZERS = [
    PreTokenizer("llama-bpe", Rules([], [LLAMA_3, BYTES], True)),
    PreTokenizer("dbrx", Rules([], [LLAMA_3, BYTES], False)),
    PreTokenizer("qwen2", Rules([NFC], [QWEN_2, BYTES], False)),
    PreTokenizer("deepseek-r1-qwen", Rules([], [QWEN_2, BYTES], False)),
    PreTokenizer("qwen35", Rules([NFC], [QWEN_3_5, BYTES], False)),
    PreTokenizer("smollm", Rules([], [EACH_DIGIT, WORDS_AND_BYTES], False)),
    PreTokenizer("gpt-2", Rules([], [WORDS_AND_BYTES], False)),
    PreTokenizer("command-r", Rules([NFC], [EACH_DIGIT, WORDS_AND_BYTES], False)),
    PreTokenizer("exaone4", Rules([NFC], [WORDS_AND_BYTES], False)),
    PreTokenizer("hunyuan-dense", Rules([], [DIGITS_IN_THREES, KANA_AND_HAN, DEEPSEEK_3, BYTES], False)),
    PreTokenizer("tekken", Rules([], [TEKKEN, BYTES], False)),
    PreTokenizer("tekken", Rules([], [TEKKEN, BYTES], True)),
    PreTokenizer("gpt-4o", Rules([], [GPT_4O, BYTES], False)),
    PreTokenizer("llama4", Rules([], [GPT_4O, BYTES], True)),
]


def pre_tokenizer_name(rules: Rules) -> str:
    """llama.cpp's name for the rules.

    Raises:
        GgufExportError: no name has exactly these rules; its details list the differences.
    """
    for known in PRE_TOKENIZERS:
        if known.rules == rules:
            return known.name
    nearest = max(PRE_TOKENIZERS, key=lambda known: _alike(known.rules, rules))
    differences = {
        part: f"{part} is {json.dumps(found, ensure_ascii=False)} where {nearest.name} has "
        f"{json.dumps(expected, ensure_ascii=False)}"
        for part, found, expected in zip(Rules._fields, rules, nearest.rules, strict=True)
        if found != expected
    }
    raise GgufExportError(
        f"No llama.cpp pre-tokenizer is known for the tokenizer's rules: {nearest.name}, the nearest, has "
        f"other {' and '.join(differences)}.",
        hint=OTHER_EXPORT,
        untrusted="; ".join(differences.values()),
    )


def _alike(known: Rules, rules: Rules) -> int:
    """How much two sets of rules have in common; how words are split weighs most."""
    return sum(2 for rule in rules.pre_tokenizers if rule in known.pre_tokenizers) + sum(
        found == expected for found, expected in zip(rules, known, strict=True)
    )
