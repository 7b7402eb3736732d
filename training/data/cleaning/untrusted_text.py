"""Text from a dataset, made safe for display: no control characters, no secrets, limited length.

It remains untrusted: callers that show it to a model must mark it as data.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ... import untrusted
from ...untrusted import one_line
from .private_data import hide

TRAINED, END, CUT = "\u27e6", "\u27e7", "\u2702"
"""Marks in a preview: start and end of text that carries loss, and the position of truncation."""


def safe_line(text: str, limit: int) -> str:
    """The text, sanitized, as one line of at most `limit` characters."""
    return one_line(sanitized(text), limit)


def sanitized(text: str) -> str:
    """The text without control characters and with secrets hidden."""
    return hide(untrusted.sanitized(text))


def with_loss_marks(runs: Sequence[tuple[str, bool]], *, cut: bool) -> str:
    """The sanitized text of a row with marks around its trained parts, and at its end if it is truncated.

    Args:
        runs: texts, each with whether it is trained.
    """
    parts = [
        f"{TRAINED}{_without_marks(text)}{END}" if trained else _without_marks(text) for text, trained in runs
    ]
    return sanitized("".join(parts)) + (CUT if cut else "")


def safe_tokens(tokens: Sequence[tuple[str, bool]], most: int) -> list[tuple[str, bool]]:
    """The first tokens, sanitized; none if there is a secret in them, which is in no single one.

    Args:
        tokens: texts, each with whether it is trained; some more than `most`, so that a secret is not cut.
    """
    shown = [(untrusted.sanitized(text), trained) for text, trained in tokens]
    whole = "".join(text for text, _ in shown)
    return shown[:most] if hide(whole) == whole else []


def _without_marks(text: str) -> str:
    """Marks in the data itself would be mistaken for ours."""
    return re.sub(f"[{TRAINED}{END}{CUT}]", "?", text)
