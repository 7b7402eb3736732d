"""Frozen weights from safetensors files straight into a decoder's merged buffers.

Rows are read into one small buffer and copied to their place, on whichever device: neither a second copy of
the model nor a mapped file ever counts against memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from ...errors import ModelLoadError
from ...models.safetensors_files import StoredTensor, read_header, shards, stored_tensors
from ...untrusted import short_name, shown_path
from .decoder import PackedDecoder

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

HEAD = "lm_head.weight"
STAGING_BYTES = 64 << 20

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def load_weights(decoder: PackedDecoder, folder: Path) -> None:
    """Fill `decoder` from the safetensors of a Hugging Face model folder, converting to its dtype.

    Raises:
        ModelLoadError: a file or tensor is missing or of the wrong shape, or a file is not safetensors.
    """
    places = destinations(decoder)
    head: Tensor | None = None
    if decoder.config.tie_word_embeddings and HEAD in stored_tensors(folder):
        head = places[HEAD] = torch.empty_like(decoder.embedding)
    staging = torch.empty(STAGING_BYTES, dtype=torch.uint8, pin_memory=decoder.device.type == "cuda")
    for path in shards(folder):
        with path.open("rb") as file:
            for name, stored in read_header(path).items():
                place = places.pop(_full_name(name), None)
                if place is not None:
                    _copy(file, stored, place, staging, f"{short_name(name)} in {shown_path(path)}")
    if places:
        raise ModelLoadError(
            f"{shown_path(folder)} lacks {len(places)} tensors, for example {min(places)}.",
            hint="Download the model again.",
        )
    if head is not None and not torch.equal(head, decoder.embedding):
        raise ModelLoadError(
            f"{shown_path(folder)} has an {HEAD} that differs from the embedding, though "
            "tie_word_embeddings is set.",
            hint="Set tie_word_embeddings to false in config.json.",
        )
    spread_qk_norms(decoder)


def destinations(decoder: PackedDecoder) -> dict[str, Tensor]:
    """Where each tensor of a checkpoint belongs, as views into the decoder's buffers."""
    places = {"model.embed_tokens.weight": decoder.embedding, "model.norm.weight": decoder.final_norm}
    if not decoder.config.tie_word_embeddings:
        places["lm_head.weight"] = decoder.lm_head
    for index, layer in enumerate(decoder.layers):
        prefix = f"model.layers.{index}"
        places[f"{prefix}.input_layernorm.weight"] = layer.input_norm
        places[f"{prefix}.post_attention_layernorm.weight"] = layer.post_attention_norm
        if layer.qk_norm is not None:
            places[f"{prefix}.self_attn.q_norm.weight"] = layer.qk_norm[0]
            places[f"{prefix}.self_attn.k_norm.weight"] = layer.qk_norm[decoder.config.num_heads]
        for linear in layer.linears():
            for module in linear.modules:
                rows = linear.rows_of(module)
                places[f"{module.name}.weight"] = linear.weight[rows]
                if linear.bias is not None:
                    places[f"{module.name}.bias"] = linear.bias[rows]
    return places


def _full_name(name: str) -> str:
    """Checkpoints of a bare decoder leave out the leading `model.`."""
    return name if name.startswith(("model.", "lm_head.")) else f"model.{name}"


def _copy(file: BufferedReader, stored: StoredTensor, place: Tensor, staging: Tensor, what: str) -> None:
    if not stored.is_float:
        raise ModelLoadError(f"{what} holds no floating-point numbers.", hint="Take an unquantised model.")
    if stored.shape != tuple(place.shape):
        raise ModelLoadError(f"{what} has shape {stored.shape}, not {tuple(place.shape)}.")
    row_bytes = stored.row_bytes
    file.seek(stored.start)
    for rows in _row_ranges(stored.shape[0], max(1, staging.numel() // row_bytes)):
        part = place[rows]
        buffer = staging[: part.shape[0] * row_bytes]
        if file.readinto(cast("WriteableBuffer", buffer.numpy())) != buffer.numel():
            raise ModelLoadError(f"{what} ends too early.", hint="Download the model again.")
        part.copy_(buffer.view(DTYPES[stored.dtype]).view(part.shape))


def _row_ranges(rows: int, step: int) -> Iterator[slice]:
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def spread_qk_norms(decoder: PackedDecoder) -> None:
    """The norm's weight is the same for all query heads, and for all key heads; it was read for the first."""
    num_heads = decoder.config.num_heads
    for layer in decoder.layers:
        if layer.qk_norm is not None:
            layer.qk_norm[:num_heads] = layer.qk_norm[0].clone()
            layer.qk_norm[num_heads:] = layer.qk_norm[num_heads].clone()
