"""The text of answers while they are made: where it ends, and how much of it is certain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

BROKEN = "\N{REPLACEMENT CHARACTER}"  # of a character whose other bytes are in the next token


class NewText:
    """The new text of each row of a batch.

    Args:
        before: tokens of each row before the new ones.
        stop: texts before which an answer ends.
        on_text: called with the text so far of the first row, as far as no later token changes it.
    """

    def __init__(
        self, tokenizer: Any, before: int, stop: Sequence[str], on_text: Callable[[str], None] | None
    ) -> None:
        self._tokenizer, self._before, self._stop, self._on_text = tokenizer, before, stop, on_text

    @property
    def is_wanted(self) -> bool:
        """Whether the text has to be looked at after each token."""
        return bool(self._stop) or self._on_text is not None

    def ended(self, rows: Sequence[Sequence[int]]) -> list[bool]:
        """Whether each row has come to a text of `stop`; `rows` are all tokens, also of the prompts."""
        texts: list[str] = [
            self._tokenizer.decode(row[self._before :], skip_special_tokens=True) for row in rows
        ]
        if self._on_text is not None:
            self._on_text(certain(texts[0], self._stop))
        return [until(text, self._stop) != text for text in texts]


def until(text: str, stop: Sequence[str]) -> str:
    """The text before the first of the texts of `stop`."""
    found = [place for each in stop if (place := text.find(each)) >= 0]
    return text[: min(found)] if found else text


def certain(text: str, stop: Sequence[str]) -> str:
    """The beginning of a whole answer whose text so far this is: without what more text could take away."""
    whole = text.rstrip(BROKEN)
    # A text that has only begun may do so before one that is whole.
    held_back = max((_begun(whole, each) for each in stop), default=0)
    return until(whole, stop)[: len(whole) - held_back].strip()


def _begun(text: str, stop: str) -> int:
    """How many characters at the end of the text begin `stop`."""
    return next((length for length in range(len(stop) - 1, 0, -1) if text.endswith(stop[:length])), 0)
