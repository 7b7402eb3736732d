"""The size of a model, as most models' names tell it."""

from __future__ import annotations

import re

IN_NAME = re.compile(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)b(?![a-z0-9])")


def billions_in(name: str) -> float | None:
    """Billions of weights; None where the name says nothing."""
    told = IN_NAME.search(name.lower())
    return (float(told[1]) or None) if told else None
