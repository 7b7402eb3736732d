"""The spec of an inspection from its arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..config.settings import Settings, load_settings
from ..config.specs import InspectSpec, TrainingGroup
from .settings import by_group
from .validated import validated


def inspect_spec(
    defaults: Settings | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    arguments: Mapping[str, Any],
    preview: int = 3,
    roots: Sequence[str] | None = None,
) -> InspectSpec:
    """The spec of an inspection of a dataset; arguments as in `train_spec`.

    Raises:
        InputError: an unknown name, a value out of bounds, or a secret.
    """
    groups = by_group(defaults or load_settings(), settings or {}, arguments)
    kept = {name: groups[name] for name in ("model", "data")}
    seed = groups["training"].get("seed", TrainingGroup().seed)
    return validated(InspectSpec, {**kept, "preview": preview, "seed": seed, "roots": roots})
