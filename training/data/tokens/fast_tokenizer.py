"""Tokenises several times faster with `fastokens`, where its tokens are verified to be the same.

`fastokens` returns no offsets. A byte-level vocabulary needs none: each token stands for fixed bytes, so a
token begins where the bytes of the tokens before it end. This is verified for each text: the bytes of its
tokens, joined, must equal the text. If they differ (a normaliser changed the text, a token includes white
space, the vocabulary is not byte-level), the model's own tokenizer handles the text. It also handles texts
with characters of `AMBIGUOUS`, and all texts if the two tokenizers differ on any of the `SAMPLES`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from .token_offsets import Tokenised

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

AMBIGUOUS = re.compile("[\u017f\u180e]")
"""The long s (equal to s if case is ignored) and the Mongolian vowel separator (white space only in older
Unicode). Regular expression engines treat them differently."""

SAMPLES = (
    "The quick brown fox isn't THERE'S, we'll see: 1234567 + 89.5 = x_1;  two  spaces,\ttabs\r\n\nlines. ",
    "naïve café, e\u0301, Straße, Ελληνικά, привет, שלום, العربية, हिन्दी, 东京は日本語, 한국어 ½ ² Ⅷ ١٢٣ №5",
    "🙂 👩\u200d👧 🇩🇪 \u00a0\u2003\u3000x \u200b\ufeff\x00\x1c\x85\u2028 don\u2019t \u201cso\u201d \u2026",
    "def f(x):\n    return {'a': [x**2, 0xFF]}  # ?!\n\t\tif a!=b and c<=d: pass\n<b>&amp;</b> http://a.b/?d=e",
    "'s 'S 'll 'LL\t's \t'll .\t.a 's123",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaa ================",
    "  \n \n  a",
    " ",
    "\n",
)
"""Texts on which tokenizers differ, or are likely to."""

NO_BYTE, NO_LETTER = 0xFF, "\uffff"
"""A byte that never occurs in UTF-8, and a character that encodes no byte."""


class FastTokenizer:
    """See the module; made by `fast_tokenizer`.

    Args:
        fast: a `fastokens.Tokenizer`.
        token_bytes: (bytes,) the bytes of all tokens of the vocabulary, joined.
        lengths: (vocabulary,) number of bytes of each token.
    """

    def __init__(self, fast: Any, token_bytes: NDArray[np.uint8], lengths: NDArray[np.int32]) -> None:
        import numpy as np

        self._fast = fast
        self._bytes, self._lengths = token_bytes, lengths
        self._places = np.cumsum(lengths, dtype=np.int32) - lengths

    def tokenise(self, texts: Sequence[str], char_offsets: Sequence[Sequence[int]]) -> list[Tokenised | None]:
        """Tokenises like `ModelTokenizer.tokenise`; None for a text that needs the model's own tokenizer."""
        import numpy as np

        chosen = [
            n for n, text in enumerate(texts) if text and (text.isascii() or not AMBIGUOUS.search(text))
        ]
        result: list[Tokenised | None] = [None] * len(texts)
        if not chosen:
            return result
        try:
            ids, edges = self._ids([texts[number] for number in chosen])
        except ValueError:  # its regular expressions fail on runs of millions of spaces
            return result
        data = [texts[number].encode() for number in chosen]
        starts, decoded = self._decode(ids)
        first = np.append(starts, len(decoded))[edges].tolist()  # (chosen + 1,) bytes before each text
        same = _same(data, decoded, first)
        asked = [
            first[n] + _bytes_before(texts[number], len(data[n]), offset)
            for n, number in enumerate(chosen)
            for offset in char_offsets[number]
        ]
        found = iter(np.searchsorted(starts, np.array(asked, np.int32)).tolist())
        ends: list[int] = edges.tolist()
        for n, number in enumerate(chosen):
            at = [next(found) - ends[n] for _ in char_offsets[number]]
            if same[n]:
                result[number] = Tokenised(ids[ends[n] : ends[n + 1]], at)
        return result

    def _ids(self, texts: list[str]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The tokens of all texts, joined, and the edges of each text: (tokens,) and (texts + 1,)."""
        import numpy as np

        ids, edges = self._fast.encode_batch_flat(texts, add_special_tokens=False)
        return np.frombuffer(ids, np.int32), np.frombuffer(edges, np.int64)

    def _decode(self, ids: NDArray[np.int32]) -> tuple[NDArray[np.int32], bytes]:
        """Index of the first byte of each token, (tokens,), and the bytes of all tokens."""
        import numpy as np

        lengths = self._lengths[ids]
        ends = np.cumsum(lengths, dtype=np.int32)
        starts = ends - lengths
        index = np.repeat(self._places[ids] - starts, lengths)
        index += np.arange(len(index), dtype=np.int32)
        return starts, self._bytes[index].tobytes()


def _same(data: list[bytes], decoded: bytes, first: list[int]) -> list[bool]:
    """For each text whether the bytes of its tokens equal it."""
    # Usually all texts are equal: one comparison then replaces one per text.
    if b"".join(data) == decoded and first[1:-1] == [*accumulate(map(len, data))][:-1]:
        return [True] * len(data)
    return [decoded[start:end] == text for text, start, end in zip(data, first, first[1:], strict=False)]


def _bytes_before(text: str, size: int, character: int) -> int:
    """Number of bytes before a character of a text that has `size` bytes."""
    return min(character, size) if len(text) == size else len(text[:character].encode())


def fast_tokenizer(backend: Any) -> FastTokenizer | None:
    """The fast version of a `tokenizers.Tokenizer`; None unless it gives the same tokens for `SAMPLES`."""
    if find_spec("fastokens") is None:
        return None
    import fastokens

    try:
        fast = fastokens.Tokenizer.from_json_str(backend.to_str())
    except ValueError:  # a tokenizer type that fastokens does not support
        return None
    fast.no_truncation()
    fast.no_padding()
    made = FastTokenizer(fast, *_bytes_of_tokens(backend))
    own = [found.ids for found in backend.encode_batch_fast([*SAMPLES], add_special_tokens=False)]
    found = made.tokenise(SAMPLES, [()] * len(SAMPLES))
    same = [one is None or one.ids.tolist() == ids for one, ids in zip(found, own, strict=True)]
    return made if found[0] is not None and all(same) else None


def _bytes_of_tokens(backend: Any) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """The bytes of all tokens, joined, and the number of bytes of each: (bytes,) and (vocabulary,).

    Byte-level vocabularies write bytes as letters, as GPT-2 does (Radford et al., 2019): printable bytes as
    themselves, the others as U+0100 and following. Added tokens are written as plain text.
    """
    import numpy as np

    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in visible]
    letters = {byte: 256 + number for number, byte in enumerate(hidden)}
    byte_of = np.full(2**16, NO_BYTE, np.uint8)
    byte_of[visible] = visible
    byte_of[[*letters.values()]] = [*letters]

    vocabulary: dict[str, int] = backend.get_vocab(with_added_tokens=True)
    added: dict[int, Any] = backend.get_added_tokens_decoder()
    tokens = [""] * (1 + max([*vocabulary.values(), *added]))
    for token, number in vocabulary.items():
        tokens[number] = token
    for number, token in added.items():
        tokens[number] = token.content.encode().decode("latin-1").translate(letters)
    tokens = [token or NO_LETTER for token in tokens]
    codes = np.frombuffer("".join(tokens).encode("utf-32-le", "replace"), np.uint32)
    lengths = np.fromiter(map(len, tokens), np.int32, len(tokens))
    return byte_of[np.minimum(codes, 2**16 - 1)], lengths
