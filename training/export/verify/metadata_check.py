"""Compares a GGUF file's tokenizer with the files that it was made from: token by token, merge by merge.

The expected values come from the tokenizers library and tokenizer.json, not from the code that wrote it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise, zip_longest
from typing import Any

from ...untrusted import short_name
from ..tokenizer.folder import TokenizerFolder
from ..tokenizer.merges import merge_pairs
from ..tokenizer.token_types import TokenType, padding

Metadata = dict[str, Any]

ROLES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}


def metadata_differences(folder: TokenizerFolder, metadata: Metadata) -> Iterator[str]:
    """A sentence for each way in which the file's tokenizer is not the folder's."""
    yield from _tokens(folder, metadata)
    yield from _special(folder, metadata)
    if "tokenizer.ggml.scores" in metadata:
        yield from _scores(folder, metadata)
    else:
        yield from _merges(folder, metadata)


def _tokens(folder: TokenizerFolder, metadata: Metadata) -> Iterator[str]:
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    size = folder.tokenizer.get_vocab_size(with_added_tokens=True)
    if size > len(tokens):
        yield f"The tokenizer has {size} tokens, the file {len(tokens)}."
    for id, (token, kind) in enumerate(zip(tokens, types, strict=True)):
        expected: str | None = folder.tokenizer.id_to_token(id)
        if expected is None:
            expected = padding(id)
        elif kind == TokenType.USER_DEFINED:
            expected = expected.replace("▁", " ")
        if token != expected:
            yield f"Token {id} is {_shown(token)} in the file and {_shown(expected)} in the tokenizer."


def _special(folder: TokenizerFolder, metadata: Metadata) -> Iterator[str]:
    for role, key in ROLES.items():
        expected = folder.role_id(role)
        id = metadata.get(f"tokenizer.ggml.{key}_token_id")
        if expected is not None and id != expected:
            yield f"The {role} token is {id} in the file and {expected} in the tokenizer."


def _merges(folder: TokenizerFolder, metadata: Metadata) -> Iterator[str]:
    stored: list[str] = [merge for merge in metadata["tokenizer.ggml.merges"] if merge]
    for place, (merge, pair) in enumerate(zip_longest(stored, merge_pairs(folder))):
        if merge is None or pair is None or merge.replace("Ġ", " ") != " ".join(pair).replace("Ġ", " "):
            yield f"Merge {place} is {_shown(merge)} in the file and {_shown(pair)} in the tokenizer."


def _scores(folder: TokenizerFolder, metadata: Metadata) -> Iterator[str]:
    scores = metadata["tokenizer.ggml.scores"]
    made = dict.fromkeys(left + right for left, right in merge_pairs(folder))
    plain = [token for token in made if folder.vocab[token] not in folder.added_tokens]
    for earlier, later in pairwise(plain):
        if scores[folder.vocab[earlier]] < scores[folder.vocab[later]]:
            yield f"{_shown(later)} has a higher score than {_shown(earlier)}, which is merged earlier."


def _shown(text: object) -> str:
    return short_name(repr(text))
