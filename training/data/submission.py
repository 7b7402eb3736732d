"""What can be known of a dataset when a run is asked for: cheap, without a network, and without its rows."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from glob import has_magic
from pathlib import Path
from typing import Any, cast

from ..config import DataGroup
from ..errors import DatasetError, InputError
from ..paths import PathPolicy
from .reading import open_data
from .sources import Source, is_hub_name


def local_source(data: DataGroup, permit: Callable[[Path], object]) -> Source | None:
    """The dataset's files, or None for a dataset of the Hub.

    Raises:
        DatasetError: there is no such file, its type cannot be read, or there is nothing in it.
        PathForbiddenError: a file may not be read.
    """
    if isinstance(data.source, str) and _is_on_hub(data.source):
        return None
    source = open_data(data, permit)
    if source.size() == 0:
        names = ", ".join(part.name for part in source.parts[:3])
        raise DatasetError(f"{names} is empty.", hint="Give a file with at least one row.")
    return source


def content_of(data: DataGroup, permit: Callable[[Path], object]) -> str:
    """A hash that changes with the dataset's content; for a Hub dataset, with its name and revision."""
    source = local_source(data, permit)
    if source is not None:
        return source.content_hash()
    return hashlib.sha256(f"{data.source} {data.split} {data.dataset_revision}".encode()).hexdigest()


def named_source(given: object) -> str | list[str]:
    """The names of a dataset that Python code gives: a path or a name, or a list of them.

    Raises:
        InputError: it is something else, e.g. rows in memory.
    """
    if isinstance(given, list | tuple):
        return [_name(item) for item in cast("list[Any]", given)]
    return _name(given)


def _name(given: object) -> str:
    if isinstance(given, str | os.PathLike):
        return str(cast("str | os.PathLike[str]", given))
    raise InputError(
        f"dataset: rows in memory ({type(given).__name__}) are not accepted.",
        hint="Write them to a .jsonl file, one row a line as JSON, and give its path.",
    )


def resolved_source(given: str | list[str], paths: PathPolicy) -> str | list[str]:
    """The dataset as a spec holds it: absolute paths that may be read, patterns, or a Hub name.

    Raises:
        PathForbiddenError: a path is outside of what may be touched.
    """
    if isinstance(given, list):
        return [_resolved(item, paths) for item in given]
    return given if _is_on_hub(given) else _resolved(given, paths)


def _resolved(given: str, paths: PathPolicy) -> str:
    if not has_magic(given) or Path(given).expanduser().exists():
        return paths.resolve(given, "dataset")
    parts = Path(given).parts
    fixed = next(index for index, part in enumerate(parts) if has_magic(part))
    folder = paths.resolve(str(Path(*parts[:fixed])), "dataset")  # each file is checked when it is opened
    return str(Path(folder, *parts[fixed:]))


def _is_on_hub(name: str) -> bool:
    return is_hub_name(name) and not Path(name).expanduser().exists()
