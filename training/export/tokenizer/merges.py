"""The merges of a BPE tokenizer: which two tokens become one, the most important first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...errors import GgufExportError
from ...untrusted import quoted, shown_path
from .folder import TokenizerFolder


def merge_pairs(folder: TokenizerFolder) -> Iterator[tuple[str, str]]:
    """The pairs, whether the file has them as "left right" or as ["left", "right"].

    Raises:
        GgufExportError: a merge is neither.
    """
    for merge in folder.model["merges"]:
        parts: Any = merge.split(" ") if isinstance(merge, str) else merge
        if len(parts) != 2:
            where = shown_path(folder.path)
            raise GgufExportError(f"The tokenizer in {where} has the merge {quoted(merge)}, not a pair.")
        yield parts[0], parts[1]


def gguf_merges(folder: TokenizerFolder) -> list[str]:
    """The merges as GGUF has them: "left right", a space within a token written as the byte alphabet does."""
    return [f"{left.replace(' ', 'Ġ')} {right.replace(' ', 'Ġ')}" for left, right in merge_pairs(folder)]
