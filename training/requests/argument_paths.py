"""The paths among the arguments of a person or a program: absolute, permitted, with links followed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..config.settings import Settings
from ..files.paths import PathPolicy
from ..models.presets import AUTO, classify_model
from .dataset_source import named_source, resolved_source


def with_resolved_paths(
    arguments: Mapping[str, Any], defaults: Settings, *, weights: bool = True
) -> dict[str, Any]:
    """The arguments with absolute paths for `dataset`, `model` and `output`.

    Args:
        weights: as for `classify_model`.

    Raises:
        InputError: the model's name is not valid, or the dataset is no path or name.
        PathForbiddenError: a path is in a system folder or in a folder of credentials.
    """
    paths = PathPolicy.for_person(defaults.home)
    resolved = dict(arguments)
    if arguments.get("dataset"):
        resolved["dataset"] = resolved_source(named_source(arguments["dataset"]), paths)
    if arguments.get("validation"):
        resolved["validation"] = resolved_source(named_source(arguments["validation"]), paths)
    if arguments.get("output"):
        resolved["output"] = paths.resolve(str(arguments["output"]), "output", write=True)
    model = str(arguments.get("model") or defaults.model.name)
    if model != AUTO and classify_model(model, weights=weights).kind == "folder":
        resolved["model"] = paths.resolve(model, "model")
    return resolved
