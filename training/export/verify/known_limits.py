"""Texts that llama.cpp tokenises differently from the tokenizer, whatever the GGUF file contains.

Found by running llama.cpp (llama-cpp-python 0.3.36) against the tokenizers library.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from ...data.readers.libraries import library
from ..tokenizer.folder import TokenizerFolder
from ..tokenizer.token_types import TokenType

CONTROL_BY_TEXT = """
    <|eot_id|> <|im_end|> <|end|> <|return|> <|call|> <|flush|> <|calls|> <end_of_turn> <|endoftext|> </s>
    <|eom_id|> <EOT> _<EOT> [EOT] [EOS] <|end_of_text|> <end_of_utterance> <eos> <turn|> <|tool_response>
    <｜end▁of▁sentence｜> [e~[ <|fim_prefix|> <fim-prefix> <fim_prefix> <｜fim▁begin｜> <PRE> ▁<PRE>
    <|code_prefix|> <|prefix|> <|fim_suffix|> <fim-suffix> <fim_suffix> <｜fim▁hole｜> <SUF> ▁<SUF>
    <|code_suffix|> <|suffix|> <|fim_middle|> <fim-middle> <fim_middle> <｜fim▁end｜> <MID> ▁<MID>
    <|code_middle|> <|middle|> <|fim_pad|> <fim-pad> <fim_pad> <PAD> [PAD] <|fim_repo|> <|repo_name|>
    <fim-repo> <REPO> <reponame> <|file_sep|>
"""  # noqa: RUF001
"""llama.cpp makes a token with one of these texts a control token, whatever its type in the file."""

ASCII_CASE_ONLY = ("tekken", "gpt-4o", "llama4")
"""Pre-tokenizers that split at a change of case, which llama.cpp sees in a to z alone."""


DIGITS_OF_UNICODE_16 = (
    "[\U00010d40-\U00010d49\U000116d0-\U000116e3\U00011bf0-\U00011bf9\U00016130-\U00016139"
    "\U00016d70-\U00016d79\U0001ccf0-\U0001ccf9\U0001e5f1-\U0001e5fa]"
)
"""The only characters of all on which Llama 3's tokenizer differs."""
CASED_OR_MARK = ("Lu", "Ll", "Lt", "Lm", "Mn", "Mc", "Me")


class KnownLimit(NamedTuple):
    """A class of texts that llama.cpp may tokenise differently."""

    reason: str
    covers: Callable[[str], object]
    """True for such a text."""


def known_limits(folder: TokenizerFolder, metadata: dict[str, Any]) -> list[KnownLimit]:
    """The limits that apply to this tokenizer.

    Args:
        metadata: the GGUF file's.
    """
    contents = [token.content for token in folder.added_tokens.values()]
    limits = [
        _composition(folder.tokenizer.normalizer),
        _new_digits(metadata["tokenizer.ggml.model"]),
        _missing_bytes(folder, metadata["tokenizer.ggml.model"]),
        _case(metadata["tokenizer.ggml.pre"]),
        _white_space(folder.added_tokens.values()),
        _space_prefix(folder.tokenizer, contents),
        _control_by_text(metadata),
    ]
    return [limit for limit in limits if limit]


def _composition(normalizer: Any) -> KnownLimit | None:
    if normalizer is None or normalizer.normalize_str("e\u0301") != "é":
        return None

    def changes(text: str) -> bool:
        return normalizer.normalize_str(text) != text

    return KnownLimit("llama.cpp does not normalise text to NFC first.", changes)


def _new_digits(model: str) -> KnownLimit | None:
    if model != "gpt2":
        return None
    covers = re.compile(DIGITS_OF_UNICODE_16).search
    return KnownLimit("llama.cpp does not know the digits added in Unicode 16.", covers)


def _missing_bytes(folder: TokenizerFolder, model: str) -> KnownLimit | None:
    """SmolLM2 has no token for 21 bytes, some of which stand in control characters."""
    byte_level = library("tokenizers.pre_tokenizers", "Checking a tokenizer").ByteLevel(
        add_prefix_space=False, use_regex=False
    )
    missing = set(byte_level.alphabet()) - folder.vocab.keys()
    if model != "gpt2" or not missing:
        return None

    def covers(text: str) -> bool:
        return any(not missing.isdisjoint(piece) for piece, _place in byte_level.pre_tokenize_str(text))

    return KnownLimit(
        f"llama.cpp drops the {len(missing)} bytes for which there is no token after merging, "
        "the tokenizer before",
        covers,
    )


def _case(pre: str) -> KnownLimit | None:
    if pre not in ASCII_CASE_ONLY:
        return None
    return KnownLimit(
        "llama.cpp splits words with combining marks, or with cased letters other than A to Z, differently.",
        _has_mark_or_case_beyond_ascii,
    )


def _has_mark_or_case_beyond_ascii(text: str) -> bool:
    return any(ord(letter) > 127 and unicodedata.category(letter) in CASED_OR_MARK for letter in text)


def _white_space(added: Iterable[Any]) -> KnownLimit | None:
    tokens = [token.content for token in added if token.lstrip or token.rstrip or token.single_word]
    if not tokens:
        return None
    return KnownLimit(
        f"llama.cpp treats the text next to {_some(tokens)} differently from the tokenizer.",
        _holds_one_of(tokens),
    )


def _space_prefix(tokenizer: Any, added: list[str]) -> KnownLimit | None:
    if "Metaspace" not in repr(tokenizer.pre_tokenizer):
        return None
    after_token = _holds_one_of(added)

    def covers(text: str) -> object:
        return text.startswith((" ", "▁")) or after_token(text)

    return KnownLimit(
        "llama.cpp also adds a space before a text that begins with one, and after special tokens.",
        covers,
    )


def _control_by_text(metadata: dict[str, Any]) -> KnownLimit | None:
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    control = set(CONTROL_BY_TEXT.split())
    claimed = [
        token
        for token, kind in zip(tokens, types, strict=True)
        if kind != TokenType.CONTROL and token in control
    ]
    if not claimed:
        return None
    return KnownLimit(
        f"llama.cpp treats {_some(claimed)} as control tokens because of their text.", _holds_one_of(claimed)
    )


def _holds_one_of(tokens: Iterable[str]) -> Callable[[str], object]:
    return re.compile("|".join(map(re.escape, tokens)) or r"(?!)").search


def _some(tokens: list[str]) -> str:
    shown = ", ".join(tokens[:5])
    return shown if len(tokens) <= 5 else f"{shown} and {len(tokens) - 5} more"
