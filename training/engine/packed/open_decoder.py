"""A decoder with the weights of a model folder: their form, their place, and the memory that they take."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ...config.specs import LoraGroup
from ...models.decoder_families import PLAIN
from ...models.safetensors_files import stored_tensors
from ...models.text_model import stores_head
from ..parallel.ranks import ALONE, Ranks
from ..plan import Precision
from .decoder import PackedDecoder
from .decoder_config import DecoderConfig, read_decoder_config
from .expanded_linear import ExpandedLinears
from .fp8_linear import Fp8LoraLinear
from .host_memory import host_buffer
from .layer_store import LayerStore
from .load_weights import load_weights
from .mxfp4 import stored_in_mxfp4
from .nf4_checkpoint import stored_in_4bit
from .sharded_store import ShardedStore
from .stored_weights import LayerLayout
from .weight_layouts import layer_layouts


def load_decoder(
    model: Path,
    lora: LoraGroup,
    precision: Precision,
    device: str,
    *,
    in_4bit: bool,
    in_fp8: bool = False,
    resident_layers: int | None = None,
    ranks: Ranks = ALONE,
    while_reading: Callable[[PackedDecoder], AbstractContextManager[None]] = nullcontext,
) -> PackedDecoder:
    """The decoder of a model folder, with its frozen weights and LoRA matrices that are not initialised.

    Args:
        in_4bit: quantise weights that the folder does not hold in 4 bits already.
        in_fp8: keep and multiply them in FP8; for folders with whole weights, all of them on the device.
        resident_layers: layers whose weights stay on the device, None is all. The others stream from host
            memory, where the embeddings are then too.
        ranks: those of a host shard the layers, unless all of them stay whole on the device.
        while_reading: gets the decoder before its weights, which are read inside of what it returns.

    Raises:
        ModelLoadError: the weights cannot be read.
    """
    dtype = getattr(torch, precision)
    config, layouts, in_parts = _described(model, dtype, in_4bit=in_4bit)
    if in_fp8:
        decoder = PackedDecoder(config, lora, dtype, torch.device(device), Fp8LoraLinear)
    else:
        decoder = make_decoder(
            config,
            lora,
            dtype,
            torch.device(device),
            layouts if in_parts or resident_layers is not None else None,
            resident_layers,
            ranks,
        )
    with while_reading(decoder):
        load_weights(decoder, model)
    return decoder


def make_decoder(
    config: DecoderConfig,
    lora: LoraGroup,
    dtype: torch.dtype,
    device: torch.device,
    layouts: list[LayerLayout] | None,
    resident_layers: int | None = None,
    ranks: Ranks = ALONE,
) -> PackedDecoder:
    """A decoder without its weights.

    Args:
        layouts: how each layer's weights are stored; None: whole, each where it is computed with.
    """
    if layouts is None:
        return PackedDecoder(config, lora, dtype, device)
    shards = None
    if resident_layers is not None and ranks.here > 1:
        shards = ShardedStore(layouts, device, resident_layers, ranks)
    store = shards or LayerStore(layouts, device, resident_layers)
    embedding = table = None
    if resident_layers is not None:
        if not config.tie_word_embeddings:
            embedding = _host_matrix(config.vocab_size, config.hidden_size, dtype, device)
        if config.token_layer_size:
            columns = config.num_layers * config.token_layer_size
            table = _host_matrix(config.token_layer_vocab, columns, dtype, device)
    linears = ExpandedLinears(store)
    decoder = PackedDecoder(config, lora, dtype, device, linears, linears.experts, embedding, table)
    decoder.unpinned, decoder.shards = len(store.unpinned), shards
    return decoder


def stored_layer_bytes(model: Path) -> int:
    """What the largest layer of a checkpoint in 4 bits takes: some of its weights may be whole.

    Raises:
        ModelLoadError: the folder's weights cannot be read.
    """
    return max(layout.bytes for layout in _described(model, torch.bfloat16, in_4bit=False)[1])


def _described(
    model: Path, dtype: torch.dtype, *, in_4bit: bool
) -> tuple[DecoderConfig, list[LayerLayout], bool]:
    """The decoder's sizes, the layouts of its layers, and whether they hold anything in 4 bits."""
    from transformers import AutoConfig

    config = read_decoder_config(cast("Any", AutoConfig.from_pretrained(model, local_files_only=True)))  # pyright: ignore[reportUnknownMemberType]
    if config.place != PLAIN and stores_head(model, config.place):
        config = replace(config, tie_word_embeddings=False)
    tensors = stored_tensors(model)
    stored, mxfp4 = stored_in_4bit(tensors, config.place), stored_in_mxfp4(tensors)
    layouts = layer_layouts(config, dtype, in_4bit=in_4bit, stored=stored, mxfp4=mxfp4)
    return config, layouts, in_4bit or bool(stored or mxfp4)


def _host_matrix(rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> Tensor | None:
    """The place of an embedding in host memory; None where a GPU could not read it there."""
    buffer = host_buffer(rows * columns * dtype.itemsize, device)
    if device.type == "cuda" and not buffer.is_pinned():
        return None
    return buffer.view(dtype).view(rows, columns)
