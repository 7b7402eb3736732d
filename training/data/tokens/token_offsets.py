"""Tokens of texts and the tokens at given character offsets, by the model's own tokenizer."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Tokenised(NamedTuple):
    """A text's tokens.

    Args:
        ids: (tokens,)
        token_offsets: for each requested character offset, the first token that begins there or later.
    """

    ids: NDArray[np.int32]
    token_offsets: list[int]


class ModelTokenizer:
    """The model's own tokenizer, with the character offsets of each token.

    Args:
        backend: a `tokenizers.Tokenizer`.
    """

    def __init__(self, backend: Any) -> None:
        self._backend = _with_full_offsets(backend)

    def tokenise(self, texts: Sequence[str], char_offsets: Sequence[Sequence[int]]) -> list[Tokenised]:
        """Tokenises texts, without the special tokens that the tokenizer adds around a text.

        Args:
            char_offsets: (texts,) the characters whose tokens are needed, for each text.
        """
        import numpy as np

        found = self._backend.encode_batch(texts, add_special_tokens=False)
        return [
            Tokenised(np.array(one.ids, np.int32), [_first_token_at(one, offset) for offset in asked])
            for one, asked in zip(found, char_offsets, strict=True)
        ]


def _first_token_at(encoding: Any, character: int) -> int:
    token = encoding.char_to_token(character)
    if token is None:  # no token has the character: end of the text, or dropped by a normaliser
        return bisect_left([start for start, _ in encoding.offsets], character)
    while token < len(encoding) and encoding.token_to_chars(token)[0] < character:
        token += 1
    return token


def _with_full_offsets(backend: Any) -> Any:
    """A copy whose offsets include the space before a word, which many tokenizers leave out."""
    from tokenizers.processors import ByteLevel

    copy = deepcopy(backend)
    copy.no_truncation()
    copy.no_padding()
    copy.post_processor = ByteLevel(trim_offsets=False)
    return copy
