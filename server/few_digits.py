"""What was measured, with few digits: nobody reads more."""

from __future__ import annotations

import math
from typing import Any

DIGITS = 4
"""Significant digits of a number that was measured."""


def short(value: Any) -> Any:
    """The value with few digits, and without what is empty in its parts."""
    match value:
        case float():
            return _rounded(value)
        case dict():
            parts: dict[str, Any] = value  # pyright: ignore[reportUnknownVariableType]
            return {name: short(part) for name, part in parts.items() if part not in ("", [], {}, None)}
        case list():
            return [short(part) for part in value]  # pyright: ignore[reportUnknownVariableType]
        case _:
            return value


def _rounded(value: float) -> float:
    if not value or not math.isfinite(value):
        return value
    decimals = DIGITS - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, decimals)
    return int(rounded) if decimals <= 0 else rounded
