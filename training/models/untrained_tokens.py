"""Tokens that a model has never learnt to write, seen in the rows of its head.

A base model has rows for tokens that it was not trained on: the end of a turn, or reserved ones. They are
zero, or all the same. A LoRA does not change them, so the model could not learn to write such a token. The
embedding is looked at only where it is the head too: its row of the padding token is zero in many models.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from ..errors import ModelLoadError
from .safetensors_files import StoredTensor, stored_tensors

HEADS = ("lm_head.weight", "embed_out.weight", "output.weight")
EMBEDDINGS = ("embed_tokens.weight", "embed_in.weight", "wte.weight", "word_embeddings.weight")
"""The endings of the names of heads and embeddings, in all families."""


def untrained_tokens(folder: Path, tokens: Collection[int], others: Collection[int] = ()) -> list[int]:
    """Those of `tokens` whose row is zero, or the same as that of another token.

    Args:
        tokens: numbers of tokens.
        others: numbers of the tokens to compare with.
    """
    try:
        stored = stored_tensors(folder)
    except (ModelLoadError, OSError):  # weights of another form, which the engine reads or refuses
        return []
    tables = {name: one for name, one in stored.items() if one.is_float and len(one.shape) == 2}
    heads = [one for name, one in tables.items() if name.endswith(HEADS)]
    tied = [one for name, one in tables.items() if name.endswith(EMBEDDINGS)]
    return sorted({token for one in heads or tied for token in _untrained(one, tokens, others)})


def _untrained(tensor: StoredTensor, tokens: Collection[int], others: Collection[int]) -> Iterator[int]:
    known = {token for token in {*tokens, *others} if 0 <= token < tensor.shape[0]}
    with tensor.path.open("rb") as file:
        rows: dict[int, bytes] = {}
        for token in sorted(known):
            file.seek(tensor.start + token * tensor.row_bytes)
            rows[token] = file.read(tensor.row_bytes)
    for token in known.intersection(tokens):
        same = any(other != token and rows[other] == rows[token] for other in rows)
        if same or not any(rows[token]):
            yield token
