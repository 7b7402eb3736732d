"""Reads a .wandb file: a header of 7 bytes, then the records of LevelDB's log in blocks of 32 KiB."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

BLOCK, HEADER = 32768, 7


def records(path: Path) -> Iterator[Any]:
    """The records of the file, as wandb's own message."""
    message = import_module("wandb.proto.wandb_internal_pb2").Record
    data, at, whole = path.read_bytes(), HEADER, b""
    assert data.startswith(b":W&B")
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (1, 4):  # full, or the last part of one
            yield message.FromString(whole)
            whole = b""


def values(items: Any) -> dict[str, Any]:
    """Key → value of a history, configuration or summary."""
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}
