"""What can be known of a dataset without reading its rows."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..errors import DatasetError, DatasetFormatError, DatasetNotFoundError

CHUNK = 1 << 20  # bytes


def quick_check_source(source: str | None) -> Path:
    """The dataset's path, if there is a file of a supported type with something in it.

    Raises:
        DatasetNotFoundError: there is no such file.
        DatasetFormatError: the file's type is not supported.
        DatasetError: it is empty, a folder, or cannot be read.
    """
    path = Path(source or "")
    if not path.exists():
        raise DatasetNotFoundError(
            f"There is no file {path}.", hint="Give the absolute path of a .jsonl file."
        )
    if not path.is_file():
        raise DatasetError(f"{path} is not a file.", hint="Give the path of a .jsonl file.")
    if path.suffix.lower() not in {".jsonl", ".ndjson"}:
        raise DatasetFormatError(
            f"{path} is of type {path.suffix or '(none)'}.", hint="Save it as .jsonl: one JSON object a line."
        )
    try:
        with path.open("rb") as file:
            first = file.read(1)
    except PermissionError as error:
        raise DatasetError(
            f"{path} may not be read.", hint="Change its permissions, or copy it.", cause=error
        ) from error
    if not first:
        raise DatasetError(f"{path} is empty.", hint="One JSON object a line is expected.")
    return path


def fingerprint_source(source: str | None) -> str:
    """SHA-256 of the dataset's content, in hexadecimal."""
    digest = hashlib.sha256()
    with quick_check_source(source).open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
