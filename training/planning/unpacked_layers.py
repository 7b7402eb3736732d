"""Why the packed step does not have a model's layers, from the entries of its config.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..untrusted import short_name

ATTENTION = frozenset(("full_attention", "sliding_attention", "chunked_attention"))


def why_no_layers(config: Mapping[str, Any]) -> str:
    """The reason in one sentence, of a type that is no family of the packed step."""
    inside: Any = config.get("text_config")
    text: Mapping[str, Any] = config
    if isinstance(inside, Mapping):
        text = inside  # pyright: ignore[reportUnknownVariableType]
    found = ", ".join(_unusual(text))
    return f"The packed step has no {short_name(config.get('model_type'))} layers{found and f': {found}'}."


def _unusual(text: Mapping[str, Any]) -> Iterator[str]:
    types: Any = text.get("layer_types")
    others = {str(kind) for kind in types} - ATTENTION if isinstance(types, list) else set[str]()  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if others:
        yield f"some are of the type {short_name(min(others))}"
