"""Whether a GGUF file's tokenizer gives the same token ids as the one that the model was trained with.

llama.cpp and the tokenizers library tokenise the same thousands of texts. Without llama.cpp, only the file's
metadata is compared with the tokenizer's files, and the result says so.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ...data.readers.libraries import library
from ..gguf.reader import read_metadata
from ..tokenizer.folder import TokenizerFolder
from ..tokenizer.token_types import TokenType
from .known_limits import KnownLimit, known_limits
from .llama_tokens import TokenizeRequest, llama_cpp_is_installed, llama_token_ids
from .metadata_check import metadata_differences
from .tokenizer_probes import probe_texts

SHOWN = 5
"""Examples of one kind in a result."""
TOKENS_IN_TEXTS = 64


@dataclass(frozen=True)
class Difference:
    """A text that the two tokenise differently."""

    text: str
    parse_special: bool
    """Whether control tokens in the text were parsed."""
    tokenizer: Sequence[int]
    llama_cpp: Sequence[int]


@dataclass(frozen=True)
class KnownDifference:
    """Texts that differ because of a known limit of llama.cpp."""

    reason: str
    texts: int


@dataclass(frozen=True)
class TokenizerParity:
    """What was compared, and the differences."""

    tokens: int
    """How many tokens were compared one by one, with the merges or scores."""
    texts: int
    """How many texts were tokenised by both; 0 where llama.cpp is not installed."""
    in_files: int
    """How many tokens, merges, scores or special ids in the file are not the tokenizer's."""
    in_texts: int
    """How many texts were tokenised differently, without those under `known`."""
    file_examples: Sequence[str]
    text_examples: Sequence[Difference]
    known: Sequence[KnownDifference]

    @property
    def agrees(self) -> bool:
        return not self.in_files and not self.in_texts

    @property
    def checked(self) -> str:
        """One sentence on what was checked."""
        files = f"{self.tokens:,} tokens and how they are merged were compared"
        if not self.texts:
            return f"{files}; no text was tokenised, because llama.cpp is not installed."
        return f"{files}, and {self.texts:,} texts were tokenised by llama.cpp."


def compare_tokenizers(tokenizer_folder: Path, gguf_path: Path, *, texts: int = 3000) -> TokenizerParity:
    """Compare the tokenizer in a GGUF file with the one in a folder.

    Args:
        tokenizer_folder: the folder that `gguf_tokenizer` read.
        texts: how many are tokenised, each with and without parsing control tokens.

    Raises:
        GgufExportError: a file cannot be read, or llama.cpp fails on it.
    """
    metadata = read_metadata(gguf_path)
    folder = TokenizerFolder(tokenizer_folder, rows=len(metadata["tokenizer.ggml.tokens"]))
    in_files = list(metadata_differences(folder, metadata))
    differences: list[Difference] = []
    if llama_cpp_is_installed():
        differences = list(_differences(folder, metadata, gguf_path, texts))
    unknown, known = _sorted(differences, known_limits(folder, metadata))
    return TokenizerParity(
        tokens=len(metadata["tokenizer.ggml.tokens"]),
        texts=texts if llama_cpp_is_installed() else 0,
        in_files=len(in_files),
        in_texts=len(unknown),
        file_examples=in_files[:SHOWN],
        text_examples=unknown[:SHOWN],
        known=known,
    )


def _differences(
    folder: TokenizerFolder, metadata: dict[str, Any], gguf: Path, count: int
) -> Iterator[Difference]:
    tokenizer = _with_control_tokens(folder, metadata["tokenizer.ggml.token_type"])
    contents = [token.content for token in folder.added_tokens.values()]
    texts = probe_texts(count, tokens=_spread(contents, TOKENS_IN_TEXTS))
    for parse_special in (True, False):
        tokenizer.encode_special_tokens = not parse_special
        expected: list[list[int]] = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
        requests = [
            TokenizeRequest(text=text, parse_special=parse_special, add_special=True) for text in texts
        ]
        for text, ours, theirs in zip(texts, expected, llama_token_ids(gguf, requests), strict=True):
            if ours != theirs:
                yield Difference(text, parse_special, ours, theirs)


def _with_control_tokens(folder: TokenizerFolder, types: Sequence[int]) -> Any:
    """The folder's tokenizer, to which the same tokens are special as to llama.cpp."""
    added: list[dict[str, Any]] = [
        token | {"special": types[folder.tokenizer.token_to_id(token["content"])] == TokenType.CONTROL}
        for token in folder.settings["added_tokens"]
    ]
    if added == folder.settings["added_tokens"]:
        return folder.tokenizer
    text = json.dumps(folder.settings | {"added_tokens": added})
    tokenizer = library("tokenizers", "Checking a tokenizer").Tokenizer.from_str(text)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _sorted(
    differences: Iterable[Difference], limits: Sequence[KnownLimit]
) -> tuple[list[Difference], list[KnownDifference]]:
    """Those without a known reason, and how many texts each known reason explains."""
    unknown: list[Difference] = []
    explained: dict[str, str] = {}
    for difference in differences:
        limit = next((limit for limit in limits if limit.covers(difference.text)), None)
        if limit is None:
            unknown.append(difference)
        else:
            explained[difference.text] = limit.reason
    return unknown, [KnownDifference(reason, count) for reason, count in Counter(explained.values()).items()]


def _spread(items: Sequence[str], most: int) -> list[str]:
    """At most `most` of the items, from all over the sequence."""
    return list(islice(items, 0, None, max(1, -(-len(items) // most))))
