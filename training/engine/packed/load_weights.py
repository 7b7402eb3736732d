"""Frozen weights from safetensors files straight into a decoder's buffers.

Rows are read into small buffers and copied to their place, on whichever device: neither a second copy of the
model nor a mapped file ever counts against memory. What is kept in 4 or 8 bits is quantised matrix by matrix
while the next one is read, unless the files hold it in 4 bits already.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ...errors import ModelLoadError
from ...models.safetensors_files import stored_tensors
from ...models.text_model import HEAD, name_in_model
from ...untrusted import short_name, shown_path
from .decoder import PackedDecoder
from .decoder_layer import Layer
from .dense_beside_experts import SIDE_NORMS, DenseBesideExperts
from .expanded_linear import ExpandedExpertLinear
from .expert_places import expert_places
from .lora_linear import LoraLinear
from .mxfp4 import Mxfp4Weight
from .nf4 import Nf4Weight
from .nf4_checkpoint import StoredNf4, raw_places, stored_in_4bit, write_offset
from .quantised_weights import nf4_weights, to_quantise
from .read_rows import PIECE_BYTES, RowReader
from .sparse_mlp import SparseMlp
from .stored_weights import expand, layer_and_module

LAYER_TABLE = "embed_tokens_per_layer"
"""The module whose rows have an embedding of a token for each layer."""


def load_weights(
    decoder: PackedDecoder, folder: Path, *, threads: int | None = None, piece_bytes: int = PIECE_BYTES
) -> None:
    """Fill `decoder` from the safetensors of a Hugging Face model folder, converting to its dtype.

    Args:
        threads, piece_bytes: as for `RowReader`.

    Raises:
        ModelLoadError: a file or tensor is missing or of the wrong shape, or a file is not safetensors.
    """
    config = decoder.config
    places = _stored_places(decoder)
    stored = stored_tensors(folder)
    in_4bit = stored_in_4bit(stored, config.place)
    quantised = nf4_weights(decoder)
    to_expand = _to_expand(decoder, in_4bit, places)
    known = {**quantised, **{name: weight for name, weight, _ in to_expand}}
    raw = {name: weight for name, weight in known.items() if name in in_4bit}
    for name, weight in raw.items():
        places |= raw_places(name, weight, in_4bit[name])
        quantised.pop(name, None)
    unquantised = to_quantise(decoder, quantised)
    head: Tensor | None = None
    if config.tie_word_embeddings and HEAD in stored:
        head = places[HEAD] = torch.empty_like(decoder.embedding)
    matrices = set(unquantised.values())
    with RowReader(decoder.device, threads=threads, piece_bytes=piece_bytes) as reader:
        for layer, names in _in_turn(decoder, stored):
            for name in _of_layer(decoder, raw, layer):
                write_offset(raw[name], in_4bit[name])
            for name in names:
                what = f"{short_name(name)} in {shown_path(stored[name].path)}"
                full_name = name_in_model(name, config.place)
                if full_name in unquantised:
                    matrix = unquantised.pop(full_name)
                    if not matrix.begun and sum(each.begun for each in matrices) > 1:
                        reader.wait()  # for memory: two of them may be whole at a time
                    reader.read(stored[name], matrix.place(full_name), what)
                    reader.then(partial(matrix.has, full_name))
                elif full_name in places:
                    reader.read(stored[name], places.pop(full_name), what)
            if layer is not None and decoder.shards is not None:
                reader.wait()
                decoder.shards.keep(layer)
    missing = {*places, *unquantised}
    if missing:
        raise ModelLoadError(
            f"{shown_path(folder)} lacks {len(missing)} tensors, for example {min(missing)}.",
            hint="Download the model again.",
        )
    if head is not None and not torch.equal(head, decoder.embedding):
        raise ModelLoadError(
            f"{shown_path(folder)} has an {HEAD} that differs from the embedding, though "
            "tie_word_embeddings is set.",
            hint="Set tie_word_embeddings to false in config.json.",
        )
    for _, weight, place in to_expand:
        expand(weight, place)
    spread_qk_norms(decoder)
    if decoder.shards is not None:
        decoder.shards.loaded()


def _in_turn(decoder: PackedDecoder, names: Iterable[str]) -> Iterator[tuple[int | None, list[str]]]:
    """The tensors of a checkpoint, all at once; of a sharded decoder layer by layer."""
    if decoder.shards is None:
        yield None, list(names)
        return
    groups: dict[int | None, list[str]] = {}
    for name in names:
        groups.setdefault(_layer_of(decoder, name), []).append(name)
    yield from groups.items()


def _of_layer(decoder: PackedDecoder, names: Iterable[str], layer: int | None) -> list[str]:
    """Those of the names that are read in this turn."""
    return [name for name in names if decoder.shards is None or _layer_of(decoder, name) == layer]


def _layer_of(decoder: PackedDecoder, name: str) -> int | None:
    """The layer that a tensor of a checkpoint belongs to, if it belongs to one of the decoder."""
    place = decoder.config.place
    full_name = name_in_model(name, place)
    return layer_and_module(full_name)[0] if full_name.startswith(f"{place}.layers.") else None


def _to_expand(
    decoder: PackedDecoder, in_4bit: Mapping[str, StoredNf4], places: dict[str, Tensor]
) -> list[tuple[str, Nf4Weight, Tensor]]:
    """Modules outside of layers that a checkpoint holds in 4 bits, taken out of `places`; they stay whole."""
    found: list[tuple[str, Nf4Weight, Tensor]] = []
    for linear in decoder.model_linears():
        for module in linear.modules:
            if module.name in in_4bit:
                shape = in_4bit[module.name].shape
                parts = {
                    part: torch.empty(count, dtype=kind, device=decoder.device)
                    for part, (kind, count) in shape.parts().items()
                }
                found.append((module.name, Nf4Weight(shape, parts), places.pop(f"{module.name}.weight")))
    return found


def _stored_places(decoder: PackedDecoder) -> dict[str, Tensor]:
    """As `destinations`, under the names that checkpoints of the family have."""
    places = destinations(decoder)
    family = decoder.config.family.experts
    if family is None:
        return places
    for layer in decoder.layers:
        for each in layer.experts():
            whole = each.place()
            if whole is not None:
                del places[each.name]
                places |= expert_places(each, whole)
            elif isinstance(each, ExpandedExpertLinear) and isinstance(each.stored, Mxfp4Weight):
                places |= {f"{each.name}{part}": place for part, place in each.stored.parts.items()}
    if family.stored is None:
        return places
    block = family.stored.block
    return {name.replace(".mlp.", f".{block}."): place for name, place in places.items()}


def destinations(decoder: PackedDecoder) -> dict[str, Tensor]:
    """Where each tensor that is kept as it is belongs, as views into the decoder's buffers.

    By transformers' names, of which those of experts' parts differ from a checkpoint's.
    """
    family = decoder.config.family
    place = decoder.config.place
    places = {f"{place}.embed_tokens.weight": decoder.embedding, f"{place}.norm.weight": decoder.final_norm}
    if not decoder.config.tie_word_embeddings:
        places["lm_head.weight"] = decoder.lm_head
    for index, layer in enumerate(decoder.layers):
        prefix = f"{place}.layers.{index}"
        for name, weight in zip(family.norms, layer.norms, strict=True):
            if weight is not None:
                places[f"{prefix}.{name}.weight"] = weight
        if layer.qk_norm is not None:
            for name, weight in zip(family.qk_norm_names, _qk_norms(decoder, layer), strict=False):
                places[f"{prefix}.self_attn.{name}.weight"] = weight
        for linear in layer.linears():
            places |= dict(_of_linear(linear))
        if layer.embedding is not None:
            places[f"{prefix}.post_per_layer_input_norm.weight"] = layer.embedding.norm
        if layer.scalar is not None:
            places[f"{prefix}.layer_scalar"] = layer.scalar
        if layer.sinks is not None:
            places[f"{prefix}.self_attn.sinks"] = layer.sinks
        if isinstance(layer.mlp, SparseMlp):
            places |= {f"{prefix}.{name}": weight for name, weight in _of_experts(layer.mlp)}
        elif isinstance(layer.mlp, DenseBesideExperts):
            places |= {f"{prefix}.{name}": weight for name, weight in _of_both(layer.mlp)}
    return places | _of_layer_embeddings(decoder)


def _of_linear(linear: LoraLinear) -> Iterator[tuple[str, Tensor]]:
    for module in linear.modules:
        weight = linear.place_of(module)
        if weight is not None:
            yield f"{module.name}.weight", weight
        if linear.bias is not None:
            yield f"{module.name}.bias", linear.bias[linear.rows_of(module)]


def _of_layer_embeddings(decoder: PackedDecoder) -> dict[str, Tensor]:
    place, found = decoder.config.place, decoder.layer_embeddings
    if found is None:
        return {}
    return {
        f"{place}.{LAYER_TABLE}.weight": found.table,
        f"{place}.per_layer_projection_norm.weight": found.norm,
        **dict(_of_linear(found.projection)),
    }


def _of_both(mlp: DenseBesideExperts) -> Iterator[tuple[str, Tensor]]:
    yield from _of_experts(mlp.sparse)
    yield from zip(SIDE_NORMS, mlp.norms, strict=True)


def _of_experts(mlp: SparseMlp) -> Iterator[tuple[str, Tensor]]:
    """What a layer with experts has besides linear modules, by its name in the layer."""
    router, family = mlp.router, mlp.router.sizes.family
    named = f"{family.block}{family.router}"
    yield f"{named}.weight", router.weight
    if router.bias is not None:
        yield f"{named}.bias", router.bias
    if router.correction is not None:
        yield f"{named}.e_score_correction_bias", router.correction
    if router.scale is not None:
        yield f"{family.block}router.per_expert_scale", router.scale
    if mlp.shared_gate is not None:
        yield f"{family.block}{family.shared_gate}.weight", mlp.shared_gate
    for each in mlp.experts():
        whole = each.place()
        if whole is not None:
            yield each.sizes.name, whole.transpose(1, 2) if each.sizes.transposed else whole
        if each.bias is not None:
            yield f"{each.sizes.name}_bias", each.bias


def _qk_norms(decoder: PackedDecoder, layer: Layer) -> list[Tensor]:
    """Where the norms of queries and of own keys are read to; one of a head is spread later."""
    heads = layer.heads
    assert layer.qk_norm is not None
    parts = layer.qk_norm[: heads.num_heads], layer.qk_norm[heads.num_heads : heads.turned]
    of_head = decoder.config.family.qk_norm == "head"
    return [part[0] if of_head else part.view(-1) for part in parts if len(part)]


def spread_qk_norms(decoder: PackedDecoder) -> None:
    """A head's norm has the same weight for all query heads, and for all key heads; the first was read."""
    if decoder.config.family.qk_norm != "head":
        return
    for layer in decoder.layers:
        if layer.qk_norm is not None:
            queries, turned = layer.heads.num_heads, layer.heads.turned
            for part in (layer.qk_norm[:queries], layer.qk_norm[queries:turned]):
                part[:] = part[:1].clone()
