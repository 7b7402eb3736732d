"""Rotary scalings of Transformers that depend on the longest example of a batch.

LongRoPE (Ding et al. 2024, arXiv:2402.13753) has factors for short and for long sequences, and dynamic NTK
scaling begins beyond the trained length; Transformers chooses by the largest position in the batch. So a long
example would change the loss of the short ones beside it.
"""

from __future__ import annotations

from typing import Any, cast


def rope_border(config: Any) -> int | None:
    """Tokens above which an example must not be in a batch with shorter ones; None: it does not matter.

    Args:
        config: of a Transformers model.
    """
    text = config.get_text_config()
    given: dict[str, Any] = getattr(text, "rope_parameters", None) or {}
    by_layer_type = [cast("dict[str, Any]", value) for value in given.values() if isinstance(value, dict)]
    borders: list[int] = []
    for parameters in by_layer_type or [given]:
        kind = str(parameters.get("rope_type", ""))
        if kind == "longrope":
            borders.append(parameters["original_max_position_embeddings"])
        elif "dynamic" in kind:
            borders.append(text.max_position_embeddings)
    return min(borders, default=None)
