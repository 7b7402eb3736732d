"""Rows that a program has in memory, as a file: a run reads the same rows again when it is resumed."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, cast

from ..errors import InputError
from ..files.atomic_json import disk_full, is_disk_full
from ..untrusted import quoted

FOLDER = "datasets"
"""In the home folder; a file is named by its content, so that equal rows are one file."""
MOST_BYTES = 2 << 30
DEEPEST = 50


def as_file(dataset: Any, home: Path) -> Any:
    """A dataset argument with the path of a file instead of rows; paths and names as they are.

    Args:
        dataset: a path, a name, a list of them, a list of dicts, or a dataset of the library `datasets`.

    Raises:
        InputError: a value of a row is not one of JSON, or there are too many rows.
        DiskFullError: there is no space for the file.
    """
    rows = _rows(dataset)
    return dataset if rows is None else str(_written(rows, home / FOLDER))


def _rows(dataset: Any) -> Iterable[Any] | None:
    """The rows in memory; None if it is something else."""
    library: Any = sys.modules.get("datasets")  # without it, nothing can be of its types
    if library is not None:
        if isinstance(dataset, library.Dataset | library.IterableDataset):
            return cast("Iterable[Any]", dataset)
        if isinstance(dataset, library.DatasetDict | library.IterableDatasetDict):
            splits = [str(name) for name in cast("dict[Any, Any]", dataset)]
            raise InputError(
                f"dataset has the splits {', '.join(map(quoted, splits))}.", hint="Give one of them."
            )
    if not isinstance(dataset, list | tuple):
        return None
    found = cast("list[Any]", dataset)
    return found if any(isinstance(row, Mapping) for row in found) else None


def _written(rows: Iterable[Any], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    try:
        with NamedTemporaryFile(dir=folder, prefix=".", suffix=".part", delete=False) as part:
            try:
                for line in _lines(rows):
                    size += len(line)
                    if size > MOST_BYTES:
                        raise InputError(
                            f"The rows take more than {MOST_BYTES / 2**30:.0f} GiB.",
                            hint="Write them to .jsonl files, and give their paths.",
                        )
                    digest.update(line)
                    part.write(line)
                part.close()
                target = folder / f"rows-{digest.hexdigest()[:16]}.jsonl"
                if not target.exists():  # Windows replaces no file that another run reads
                    os.replace(part.name, target)
            finally:
                part.close()
                Path(part.name).unlink(missing_ok=True)
    except OSError as error:
        if is_disk_full(error):
            raise disk_full(folder, error) from error
        raise
    return target


def _lines(rows: Iterable[Any]) -> Iterator[bytes]:
    for number, row in enumerate(rows):
        place = f"dataset[{number}]"
        if not isinstance(row, Mapping):
            raise InputError(f"{place} is {_kind(row)}, not a dict.", hint="Give each row as a dict.")
        text = json.dumps(_plain(cast("Any", row), place), ensure_ascii=False)
        try:
            yield text.encode() + b"\n"
        except UnicodeEncodeError:
            raise InputError(f"{place} has half of a character.", hint="Repair the text.") from None


def _plain(value: Any, place: str, depth: int = 0) -> Any:
    """The value, of JSON's types only.

    Raises:
        InputError: it has another type somewhere.
    """
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if depth >= DEEPEST:
        raise InputError(f"{place} is nested more than {DEEPEST} deep.")
    if isinstance(value, list | tuple):
        items = enumerate(cast("list[Any]", value))
        return [_plain(item, f"{place}[{at}]", depth + 1) for at, item in items]
    if isinstance(value, Mapping):
        pairs = cast("Mapping[Any, Any]", value).items()
        return {_key(key, place): _plain(item, f"{place}.{key}", depth + 1) for key, item in pairs}
    raise InputError(
        f"{place} is {_kind(value)}, which JSON does not have.",
        hint="Rows hold texts, numbers, booleans, None, lists and dicts.",
    )


def _key(key: Any, place: str) -> str:
    if isinstance(key, str):
        return key
    raise InputError(f"{place} has the key {quoted(key)}, {_kind(key)}.", hint="Keys are texts.")


def _kind(value: Any) -> str:
    if isinstance(value, float):
        return f"the number {value}"
    return f"of the type {quoted(type(value).__name__)}"
