"""Weights that a checkpoint holds in bitsandbytes' 4 bits, as transformers saves them.

NAME.weight                                   two numbers a byte
NAME.weight.absmax                            of each block
NAME.weight.nested_absmax                     of 256 blocks, where magnitudes are quantised too
NAME.weight.quant_map, .nested_quant_map      the codes, always the same
NAME.weight.quant_state.bitsandbytes__nf4     JSON: block sizes, shape, offset
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ...errors import ModelLoadError
from ...files.atomic_json import read_json
from ...models.expert_layers import is_mxfp4
from ...models.safetensors_files import StoredTensor
from ...models.text_model import name_in_model
from ...untrusted import short_name, shown_path
from .nf4 import NESTED_BLOCK, Nf4Shape, Nf4Weight, code_of, dynamic_code

STATE = ".weight.quant_state.bitsandbytes__nf4"
CPU = torch.device("cpu")
BLOCKS = (32, 64, 128, 256, 512, 1024, 2048, 4096)


@dataclass(frozen=True)
class StoredNf4:
    """What the JSON of a weight says: its shape, and the offset of its magnitudes."""

    shape: Nf4Shape
    offset: float


def stored_in_4bit(stored: Mapping[str, StoredTensor], place: str) -> dict[str, StoredNf4]:
    """The modules of the decoder at `place` whose weights a checkpoint holds in NF4, by their full names.

    Raises:
        ModelLoadError: one is stored in a way that is not known.
    """
    names = [name for name in stored if name.endswith(STATE)]
    found: dict[str, StoredNf4] = {}
    for name in names:
        module = name.removesuffix(STATE)
        full = name_in_model(f"{module}.weight", place).removesuffix(".weight")
        if not full.startswith(f"{place}."):  # of a vision part, which is not loaded
            continue
        state = _state(stored[name])
        _require_known(stored, module, state)
        rows, columns = state["shape"]
        nested = "nested_blocksize" in state
        shape = Nf4Shape(rows, columns, state["blocksize"], nested)
        found[full] = StoredNf4(shape, float(state.get("nested_offset", 0.0)))
    return found


def is_in_4bit(folder: Path) -> bool:
    """Whether config.json says that the folder's weights are stored in 4 bits; not if it cannot be read."""
    try:
        config = read_json(folder / "config.json")
    except (OSError, ValueError):  # who loads the folder says so
        return False
    if is_mxfp4(config):
        return True
    stored = config.get("quantization_config")
    return isinstance(stored, dict) and bool(cast("dict[str, Any]", stored).get("load_in_4bit"))


def raw_places(module: str, weight: Nf4Weight, stored: StoredNf4) -> dict[str, Tensor]:
    """Where the bytes of each tensor of a module belong, without the offset that `write_offset` writes."""
    parts = dict(weight.parts)
    if stored.shape.nested:
        parts.pop("nested_offset")
    name = f"{module}.weight"
    return {f"{name}.{part}" if part else name: place.view(torch.uint8) for part, place in parts.items()}


def write_offset(weight: Nf4Weight, stored: StoredNf4) -> None:
    """Write what a checkpoint keeps in JSON."""
    if stored.shape.nested:
        weight.parts["nested_offset"].fill_(stored.offset)


def _state(tensor: StoredTensor) -> dict[str, Any]:
    with tensor.path.open("rb") as file:
        file.seek(tensor.start)
        raw = file.read(min(tensor.end - tensor.start, 1 << 16))
    try:
        state: dict[str, Any] = json.loads(raw)
        rows, columns = state["shape"]
        if not (isinstance(rows, int) and isinstance(columns, int)):
            raise TypeError("shape")
        return state
    except (ValueError, KeyError, TypeError) as error:
        raise ModelLoadError(
            f"A weight in {shown_path(tensor.path)} has no readable state of its 4 bits: "
            f"{type(error).__name__}.",
            cause=error,
            untrusted=str(error),
        ) from error


def _require_known(stored: Mapping[str, StoredTensor], module: str, state: Mapping[str, Any]) -> None:
    known = (
        state.get("quant_type") == "nf4"
        and state.get("blocksize") in BLOCKS
        and state.get("nested_blocksize", NESTED_BLOCK) == NESTED_BLOCK
        and state.get("nested_dtype", "float32") == "float32"
        and _holds(stored.get(f"{module}.weight.quant_map"), code_of(CPU))
        and _holds(stored.get(f"{module}.weight.nested_quant_map"), dynamic_code(CPU))
    )
    if not known:
        path = stored[f"{module}{STATE}"].path
        raise ModelLoadError(
            f"{short_name(module)} in {shown_path(path)} is in another kind of 4 bits than NF4 with "
            "bitsandbytes' codes.",
            hint="Take the unquantised model.",
        )


def _holds(tensor: StoredTensor | None, numbers: Tensor) -> bool:
    """Whether a tensor, if there is one, holds these numbers in fp32."""
    if tensor is None:
        return True
    with tensor.path.open("rb") as file:
        file.seek(tensor.start)
        raw = file.read(min(tensor.end - tensor.start, 1 << 16))
    return raw == numbers.numpy().tobytes()
