"""What a check has found."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Finding(NamedTuple):
    """One thing that is well, that is worth knowing, or that is wrong.

    Args:
        level: `problem` if something that was asked for cannot work.
        repair: what to do about it.
    """

    area: str
    level: Literal["ok", "note", "problem"]
    message: str
    repair: str | None = None
