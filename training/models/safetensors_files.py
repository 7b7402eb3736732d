"""The positions of the tensors in a model folder's safetensors files; reads no weights, needs no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ModelLoadError
from ..files.atomic_json import read_json
from ..untrusted import shown_path

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
HEADER_LIMIT = 100 << 20
ITEM_BYTES: Mapping[str, int] = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True)
class StoredTensor:
    """Position of a tensor. `start` and `end` are bytes from the file's beginning."""

    path: Path
    dtype: str
    """As safetensors names it: F32, BF16, …"""
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def is_float(self) -> bool:
        return self.dtype in ITEM_BYTES

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, that is of all but the first dimension; for floats."""
        return math.prod(self.shape[1:]) * ITEM_BYTES[self.dtype]


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """The tensors of a model folder by their names.

    Raises:
        ModelLoadError: a file is missing, is not a safetensors file, or is truncated.
    """
    return {name: tensor for path in shards(folder) for name, tensor in read_header(path).items()}


def shards(folder: Path) -> list[Path]:
    """The safetensors files of a model folder.

    Raises:
        ModelLoadError: there are none, or one is missing.
    """
    for path in weight_files(folder):
        if not path.is_file():
            raise ModelLoadError(
                f"{shown_path(path)} does not exist.",
                hint="Only models with safetensors weights are supported.",
            )
    return weight_files(folder)


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers reads a model's weights from, whether they exist or not.

    model.safetensors comes before an index: the index may be of an older checkpoint that it replaced.

    Raises:
        ModelLoadError: the index cannot be read.
    """
    whole, index = folder / WHOLE, folder / INDEX
    if not index.is_file():
        return [whole]
    try:
        weight_map: Any = read_json(index)["weight_map"]
        names: list[str] = sorted({Path(name).name for name in weight_map.values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelLoadError(
            f"{shown_path(index)} is not a readable index of weights.",
            hint="Download the model again.",
            cause=error,
        ) from error
    stale = whole.is_file() and WHOLE not in names
    return [whole] if stale else [folder / name for name in names]


def read_header(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file.

    Raises:
        ModelLoadError: the file is not of this form, or truncated.
    """
    return _header(path)[1]


def read_metadata(path: Path) -> dict[str, str]:
    """The texts that a safetensors file carries besides its tensors.

    Raises:
        ModelLoadError: the file is not of this form, or truncated.
    """
    return _header(path)[0]


def _header(path: Path) -> tuple[dict[str, str], dict[str, StoredTensor]]:
    """8 bytes of length, JSON of that length, then the data."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(size, HEADER_LIMIT):
                raise ValueError(f"a header of {length} bytes")
            header: dict[str, Any] = json.loads(file.read(length))
        metadata: dict[str, str] = dict(header.pop("__metadata__", None) or {})
        tensors = {name: _stored(path, entry, 8 + length) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelLoadError(
            f"{shown_path(path)} is not a safetensors file: {type(error).__name__}.",
            cause=error,
            untrusted=str(error),
        ) from error
    if any(tensor.end > size for tensor in tensors.values()):
        raise ModelLoadError(
            f"{shown_path(path)} is truncated at {size} bytes.", hint="Download the model again."
        )
    return metadata, tensors


def _stored(path: Path, entry: Mapping[str, Any], data_start: int) -> StoredTensor:
    start, end = entry["data_offsets"]
    tensor = StoredTensor(path, entry["dtype"], tuple(entry["shape"]), data_start + start, data_start + end)
    if tensor.is_float and tensor.end - tensor.start != math.prod(tensor.shape) * ITEM_BYTES[tensor.dtype]:
        raise ValueError(f"a tensor of shape {tensor.shape} in {tensor.end - tensor.start} bytes")
    return tensor
