"""The files of a merger: two adapters as safetensors, and one JSON file with the hashes of both."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ..errors import SLAOCheckpointError
from ..files.atomic_folder import write_folder
from ..files.atomic_json import read_json, write_json
from ..untrusted import quoted, shown_path

RECORD = "merger.json"
FORMAT_VERSION = 1


def write_merger(
    folder: Path, adapters: Mapping[str, Mapping[str, Tensor]], record: Mapping[str, Any]
) -> None:
    """Write adapters by their names, and what else there is to know.

    Raises:
        DiskFullError: there is no space; an earlier folder is unchanged.
    """

    def fill(part: Path) -> None:
        hashes: dict[str, str] = {}
        for name, tensors in adapters.items():
            content = save({key: tensor.contiguous() for key, tensor in tensors.items()})
            hashes[name] = hashlib.sha256(content).hexdigest()
            _path_of(part, name).write_bytes(content)
        write_json(part / RECORD, {"format_version": FORMAT_VERSION, "sha256": hashes, **record})

    write_folder(folder, fill)


def read_merger(folder: Path, names: tuple[str, ...]) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """The adapters of these names, and the record.

    Raises:
        SLAOCheckpointError: a file is missing, damaged, or of a newer format.
    """
    try:
        record = read_json(folder / RECORD)
        hashes = dict(record["sha256"])
        contents = {name: _path_of(folder, name).read_bytes() for name in names}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unreadable(folder, error) from error
    if record.get("format_version") != FORMAT_VERSION:
        raise SLAOCheckpointError(
            f"{shown_path(folder)} has the format {quoted(record.get('format_version'))}; "
            f"{FORMAT_VERSION} was expected.",
            hint="Use the version of backpropagate that wrote it.",
        )
    for name, content in contents.items():
        if hashlib.sha256(content).hexdigest() != hashes.get(name):
            raise SLAOCheckpointError(
                f"{shown_path(_path_of(folder, name))} is not the file that was saved.",
                hint="Use an earlier checkpoint.",
            )
    try:
        return {name: load(content) for name, content in contents.items()}, record
    except SafetensorError as error:
        raise _unreadable(folder, error) from error


def _path_of(folder: Path, name: str) -> Path:
    return folder / f"{name}.safetensors"


def _unreadable(folder: Path, error: Exception) -> SLAOCheckpointError:
    return SLAOCheckpointError(
        f"{shown_path(folder)} holds no merger that can be read: {type(error).__name__}.",
        hint="Use an earlier checkpoint.",
        untrusted=str(error),
    )
