"""How many tokens a model knows, and how many it has positions for, from its config.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from ..files.atomic_json import read_json

POSITIONS = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length", "n_ctx")
"""The names of the number of positions, by family."""


class TokenLimits(NamedTuple):
    """The limits of a model; None where its config says nothing.

    Args:
        vocabulary: rows of the embedding. A token with this number or a larger one has none.
        positions: tokens of the longest sequence for which it was made.
    """

    vocabulary: int | None = None
    positions: int | None = None


def token_limits(folder: Path) -> TokenLimits:
    """The limits of the model in a folder; none without a config.json that can be read."""
    try:
        config: Any = read_json(folder / "config.json")
    except (OSError, ValueError):
        return TokenLimits()
    if not isinstance(config, dict):
        return TokenLimits()
    sources = [source for source in (config, config.get("text_config")) if isinstance(source, dict)]  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    return TokenLimits(_first(sources, ("vocab_size",)), _first(sources, POSITIONS))  # pyright: ignore[reportUnknownArgumentType]


def _first(sources: list[dict[str, Any]], names: tuple[str, ...]) -> int | None:
    found = (source.get(name) for source in sources for name in names)
    return next((value for value in found if type(value) is int and value > 0), None)
