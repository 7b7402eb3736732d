"""The weights of a base with an adapter added, a block of rows at a time: numpy only, in fp32.

W + s·B·A (Hu et al. 2021, LoRA), where s is alpha / r, or alpha / sqrt(r) for rank-stabilised adapters
(Kalajdzievski 2023). Nothing is kept between two calls, so memory is that of the caller's block.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ExportError
from ...files.atomic_json import read_json
from ...models.plain_lora import beyond_plain_lora
from ...models.safetensors_files import StoredTensor, read_header, stored_tensors
from ...models.text_model import place_in, text_weights
from ...untrusted import quoted, short_name, shown_path
from .expert_updates import KNOWN_PARAMETERS, MODULE, ExpertUpdate, expert_matrices, stored_names

Floats = NDArray[np.float32]

PREFIX = "base_model.model."
LM_HEAD = "lm_head.weight"
TIED_BY_DEFAULT = frozenset(
    {
        *("smollm3", "gemma2", "gemma3_text", "gemma4_text", "gemma4_unified_text"),
        *("ernie4_5", "cohere2"),
    }
)
"""`model_type`s whose lm_head is the embedding where config.json does not say."""


def is_tied(config: Mapping[str, Any]) -> bool:
    """Whether lm_head is the embedding, so that only one of them is stored."""
    return bool(config.get("tie_word_embeddings", config.get("model_type") in TIED_BY_DEFAULT))


@dataclass(frozen=True)
class LoraUpdate:
    """An adapter's update of one weight: `up` is scale · B (out, r), `down` is A (r, in)."""

    up: Floats
    down: Floats

    @property
    def shape(self) -> tuple[int, ...]:
        return self.up.shape[0], self.down.shape[1]


Update = LoraUpdate | ExpertUpdate


class MergedWeights:
    """The weights of a base, with an adapter added in fp32 where there is one.

    Args:
        base: a model folder with safetensors files.
        adapter: a PEFT LoRA folder; None leaves the weights as they are.

    Of a multimodal base, these are the weights of its language model, by their names there.

    Raises:
        ModelLoadError: the base's files cannot be read.
        ExportError: the adapter is not a plain LoRA, or was trained on another base.
    """

    def __init__(self, base: Path, adapter: Path | None) -> None:
        place = place_in(base)
        self.tensors = text_weights(stored_tensors(base), place)
        self.updates = self._named(text_weights(_updates(adapter), place), adapter) if adapter else {}
        for name, tensor in self.tensors.items():
            if not tensor.is_float and not _is_mxfp4(name, tensor):
                raise ExportError(
                    f"{quoted(name)} in {shown_path(tensor.path)} has dtype {quoted(tensor.dtype)}, "
                    "which is not a floating-point type.",
                    hint="Set base_model_name_or_path in adapter_config.json to the unquantised base model.",
                )
        for name, update in self.updates.items():
            self._check(name, update, adapter)

    def rows(self, name: str, start: int, stop: int) -> Floats:
        """Rows `start` to `stop` of a weight, (stop - start, columns), or of a vector, (stop - start,)."""
        tensor = self.tensors[name]
        values = read_rows(tensor, start, stop)
        update = self.updates.get(name)
        if isinstance(update, ExpertUpdate):
            values += update.rows(start, stop)
        elif update is not None:
            values += update.up[start:stop] @ update.down
        return values

    def _named(self, updates: dict[str, Update], adapter: Path) -> dict[str, Update]:
        """By the names of the base's weights, which may be one for each expert."""
        plain = {name: update for name, update in updates.items() if isinstance(update, LoraUpdate)}
        experts = [
            (found[1], update)
            for name, update in updates.items()
            if isinstance(update, ExpertUpdate) and (found := MODULE.fullmatch(name.removesuffix(".weight")))
        ]
        named: dict[str, Update] = {}
        for block, update in experts:
            changed = stored_names([(block, update)], self.tensors)
            found = {name: LoraUpdate(*one) if isinstance(one, tuple) else one for name, one in changed}
            if not found:
                raise ExportError(
                    f"The adapter in {shown_path(adapter)} changes the experts of {quoted(block)}, which the "
                    "base model does not have in this form.",
                    hint="Export it with the unquantised base model that it was trained on.",
                )
            named |= found
        return plain | named

    def _check(self, name: str, update: Update, adapter: Path | None) -> None:
        shape, shown = update.shape, shown_path(adapter or "")
        if name == LM_HEAD and name not in self.tensors:
            raise ExportError(
                f"The adapter in {shown} changes {quoted(name)}, which is tied to the embedding and "
                "not stored separately.",
                hint="Train without lm_head among the target modules.",
            )
        if name not in self.tensors:
            raise ExportError(
                f"The adapter in {shown} changes {quoted(name)}, which the base model does not have.",
                hint="Export it with the base model that it was trained on.",
            )
        if self.tensors[name].shape != shape:
            raise ExportError(
                f"The adapter in {shown} was trained on another base model: {quoted(name)} has shape "
                f"{self.tensors[name].shape}, and the adapter needs {shape}.",
                hint="Export it with the base model that it was trained on.",
            )


def read_bytes(tensor: StoredTensor, start: int, stop: int) -> NDArray[np.uint8]:
    """Rows of a stored tensor of bytes."""
    width = math.prod(tensor.shape[1:])
    with tensor.path.open("rb") as file:
        file.seek(tensor.start + start * width)
        data = file.read((stop - start) * width)
    return np.frombuffer(data, np.uint8).reshape(stop - start, *tensor.shape[1:])


def read_rows(tensor: StoredTensor, start: int, stop: int) -> Floats:
    """Rows of a stored float tensor as fp32."""
    count = (stop - start) * math.prod(tensor.shape[1:])
    with tensor.path.open("rb") as file:
        file.seek(tensor.start + start * tensor.row_bytes)
        data = file.read((stop - start) * tensor.row_bytes)
    return as_float32(data, tensor.dtype, count).reshape(stop - start, *tensor.shape[1:])


def as_float32(data: bytes, dtype: str, count: int) -> Floats:
    """The numbers of a safetensors dtype as a new fp32 array. bf16 is the upper half of fp32."""
    if dtype == "BF16":
        halves = np.frombuffer(data, np.uint16, count)
        return (halves.astype(np.uint32) << 16).view(np.float32)
    kind = {"F64": np.float64, "F32": np.float32, "F16": np.float16}[dtype]
    return np.frombuffer(data, kind, count).astype(np.float32)


def _is_mxfp4(name: str, tensor: StoredTensor) -> bool:
    """GPT-OSS is published with its experts in 4 bits, which both are read and exported as they are."""
    return tensor.dtype == "U8" and name.endswith(("_proj_blocks", "_proj_scales"))


def _updates(adapter: Path) -> dict[str, Update]:
    """The adapter's updates by the names of the base's weights in Transformers."""
    config = _config(adapter)
    matrices = {name: read_rows(t, 0, t.shape[0]) for name, t in _stored(adapter).items()}
    updates: dict[str, Update] = {}
    for name in [name for name in matrices if name.endswith(".lora_A.weight")]:
        module = name.removesuffix(".lora_A.weight")
        down = matrices.pop(name)
        up = matrices.pop(f"{module}.lora_B.weight", None)
        if up is None or up.shape[1:] != down.shape[:1]:
            raise ExportError(f"{shown_path(adapter)} has {quoted(name)} without a lora_B of the same rank.")
        rank = config.get("r", down.shape[0])
        of_experts = MODULE.fullmatch(module) and _divides(rank, down.shape[0])
        if not of_experts and down.shape[0] != rank:
            raise ExportError(
                f"{quoted(name)} in {shown_path(adapter)} has rank {down.shape[0]}; adapter_config.json says "
                f"{short_name(config['r'])}.",
                hint="Give the folder of a finished adapter.",
            )
        up = up * np.float32(_scale(config, rank))
        update = expert_matrices(up, down, rank) if of_experts else LoraUpdate(up, down)
        updates[f"{module.removeprefix(PREFIX)}.weight"] = update
    if matrices or not updates:
        least = quoted(min(matrices)) if matrices else "no LoRA matrices"
        raise ExportError(
            f"{shown_path(adapter)} contains {least}, which cannot be merged.",
            hint="Only plain LoRA on linear layers can be exported.",
        )
    return updates


def _divides(rank: object, rows: int) -> bool:
    """Whether an adapter's rank can be that of each expert in a matrix of so many rows."""
    return isinstance(rank, int) and rank > 0 and rows % rank == 0


def _scale(config: dict[str, Any], rank: int) -> float:
    return config["lora_alpha"] / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _config(adapter: Path) -> dict[str, Any]:
    try:
        config = read_json(adapter / "adapter_config.json")
        if not isinstance(config["lora_alpha"], int | float) or config.get("peft_type") != "LORA":
            raise ValueError(f"peft_type {config.get('peft_type')!r}, lora_alpha {config['lora_alpha']!r}")
    except (OSError, ValueError, KeyError) as error:
        raise ExportError(
            f"{shown_path(adapter)} contains no readable LoRA adapter: {type(error).__name__}.",
            untrusted=str(error),
        ) from error
    parameters: Any = config.get("target_parameters") or []
    known = all(isinstance(name, str) and KNOWN_PARAMETERS.fullmatch(name) for name in parameters)
    more = beyond_plain_lora({**config, "target_parameters": None if known else parameters})
    if more:
        raise ExportError(
            f"The adapter in {shown_path(adapter)} has {more}, which would be lost.",
            hint="Merge it with PEFT's merge_and_unload, and export the merged model's folder.",
        )
    return config


def _stored(adapter: Path) -> dict[str, StoredTensor]:
    path = adapter / "adapter_model.safetensors"
    if not path.is_file():
        raise ExportError(f"{shown_path(path)} does not exist.", hint="Give the folder of an adapter.")
    stored = read_header(path)
    unknown = next((name for name, tensor in stored.items() if not tensor.is_float), None)
    if unknown:
        raise ExportError(f"{quoted(unknown)} in {shown_path(path)} does not have a floating-point type.")
    return stored
