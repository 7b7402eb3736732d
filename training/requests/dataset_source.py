"""Resolves a dataset argument: a path, a glob pattern, a list or a Hub name."""

from __future__ import annotations

import os
from glob import has_magic
from pathlib import Path
from typing import Any, TypeVar, cast

from ..config.specs import TrainingSpec
from ..data.readers.hub_names import is_on_hub
from ..errors import InputError
from ..files.paths import PATH_LENGTH, PathPolicy, without_uri

TrainedSpec = TypeVar("TrainedSpec", bound=TrainingSpec)


def named_source(given: object) -> str | list[str]:
    """The dataset argument of Python code as text: a path or a name, or a list of them.

    Raises:
        InputError: another type, e.g. rows in memory.
    """
    if isinstance(given, list | tuple):
        return [_name(item) for item in cast("list[Any]", given)]
    return _name(given)


def _name(given: object) -> str:
    if isinstance(given, str | os.PathLike):
        return without_uri(str(cast("str | os.PathLike[str]", given)))
    raise InputError(
        f"dataset: rows in memory ({type(given).__name__}) are not accepted.",
        hint="Write them to a .jsonl file, one JSON object per line, and give its path.",
    )


def resolved_source(given: str | list[str], paths: PathPolicy) -> str | list[str]:
    """The dataset for a spec: permitted absolute paths, glob patterns, or a Hub name.

    Raises:
        PathForbiddenError: a path is outside the permitted folders.
    """
    if isinstance(given, list):
        return [_resolved(item, paths) for item in given]
    return given if is_on_hub(given) else _resolved(given, paths)


def with_resolved_validation(spec: TrainedSpec, paths: PathPolicy) -> TrainedSpec:
    """The spec with its validation dataset as `resolved_source` gives it; raises as that."""
    if spec.data.validation is None:
        return spec
    data = spec.data.model_copy(update={"validation": resolved_source(spec.data.validation, paths)})
    return spec.model_copy(update={"data": data})


def _resolved(given: str, paths: PathPolicy) -> str:
    given = without_uri(given)
    if not has_magic(given) or len(given) > PATH_LENGTH:
        return paths.resolve(given, "dataset")
    parts = Path(given).parts
    fixed = next(index for index, part in enumerate(parts) if has_magic(part))
    # The folder is permitted before anything in it is looked at; files are permitted when they are opened.
    folder = paths.resolve(str(Path(*parts[:fixed])), "dataset")
    pattern = Path(folder, *parts[fixed:])
    return paths.resolve(str(pattern), "dataset") if os.path.lexists(pattern) else str(pattern)
