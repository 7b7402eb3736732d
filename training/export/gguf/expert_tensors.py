"""The experts of a layer as one tensor of a GGUF file, in whichever form a checkpoint has them.

Most checkpoints have a weight for each expert. Gemma 4 has one for all experts of a layer, gate above up, as
llama.cpp has it. GPT-OSS has it transposed, gate and up alternating in its columns; as it is published, that
weight is MXFP4 (blocks of 32 numbers with one scale), which GGUF holds as well: these are moved, not rounded
again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import GgufExportError
from ...models.known_config import Config
from ...models.safetensors_files import StoredTensor
from ..merged.merge import Floats, MergedWeights, read_bytes, read_rows

Bytes = NDArray[np.uint8]

ONE_EXPERT = re.compile(r"model\.layers\.(\d+)\.(?:mlp|block_sparse_moe)\.experts\.(\d+)\.(\w+)\.weight")
ALL_EXPERTS = re.compile(r"model\.layers\.(\d+)\.mlp\.experts\.(gate_up|down)_proj(_bias|_blocks|_scales|)")
ALL_EXPERTS_OF_GEMMA4 = re.compile(r"model\.layers\.(\d+)\.experts\.(gate_up|down)_proj")
PARTS: Mapping[str, str] = {
    **{"gate_proj": "gate", "up_proj": "up", "down_proj": "down"},
    **{"w1": "gate", "w3": "up", "w2": "down"},
}
"""llama.cpp's names of an expert's matrices."""
MXFP4_BLOCK = 32
"""Numbers that share a scale."""


@dataclass(frozen=True)
class StackedExperts:
    """A weight for each expert, one below the other; `rows_each` of each."""

    names: tuple[str, ...]
    rows_each: int

    @property
    def row_multiple(self) -> int:
        return 1

    def values(self, weights: MergedWeights, start: int, stop: int) -> Floats:
        """Rows of all experts, (stop - start, columns)."""
        return np.concatenate([weights.rows(name, *rows) for name, rows in self._pieces(start, stop)])

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[str, tuple[int, int]]]:
        for expert in range(start // self.rows_each, -(-stop // self.rows_each)):
            first = expert * self.rows_each
            yield self.names[expert], (max(start - first, 0), min(stop - first, self.rows_each))


@dataclass(frozen=True)
class WholeExperts:
    """A weight (experts, outputs, inputs) as it is."""

    name: str
    rows_each: int

    @property
    def row_multiple(self) -> int:
        return self.rows_each

    def values(self, weights: MergedWeights, start: int, stop: int) -> Floats:
        """Rows of whole experts, (stop - start, inputs)."""
        whole = weights.rows(self.name, start // self.rows_each, stop // self.rows_each)
        return whole.reshape(stop - start, -1)


@dataclass(frozen=True)
class TransposedExperts:
    """Every `step`-th column from `first` on of a weight (experts, inputs, outputs)."""

    name: str
    rows_each: int
    first: int
    step: int

    @property
    def row_multiple(self) -> int:
        return self.rows_each

    def values(self, weights: MergedWeights, start: int, stop: int) -> Floats:
        """Rows of whole experts, (stop - start, inputs)."""
        whole = weights.rows(self.name, start // self.rows_each, stop // self.rows_each)
        rows = whole[:, :, self.first :: self.step].swapaxes(1, 2)
        return np.ascontiguousarray(rows).reshape(stop - start, -1)


@dataclass(frozen=True)
class PackedExperts:
    """Every `step`-th row from `first` on of an MXFP4 weight (experts, outputs, blocks, 16)."""

    blocks: StoredTensor
    scales: StoredTensor
    rows_each: int
    first: int
    step: int

    @property
    def row_multiple(self) -> int:
        return self.rows_each

    def values(self, weights: MergedWeights, start: int, stop: int) -> Floats:
        """Rows of whole experts, (stop - start, inputs)."""
        from gguf import GGMLQuantizationType, dequantize

        return dequantize(self.packed(start, stop), GGMLQuantizationType.MXFP4)

    def packed(self, start: int, stop: int) -> Bytes:
        """Rows of whole experts as GGUF has them, (stop - start, 17 bytes a block)."""
        experts = range(start // self.rows_each, stop // self.rows_each)
        halves = read_bytes(self.blocks, experts.start, experts.stop)[:, self.first :: self.step]
        scales = read_bytes(self.scales, experts.start, experts.stop)[:, self.first :: self.step]
        return np.concatenate([scales[..., None], _reordered(halves)], axis=-1).reshape(stop - start, -1)


Experts = StackedExperts | WholeExperts | TransposedExperts | PackedExperts


def _reordered(pairs: Bytes) -> Bytes:
    """A byte of a checkpoint has numbers 2j and 2j + 1 of its block; one of GGUF numbers j and j + 16."""
    halves = np.stack([pairs & np.uint8(15), pairs >> np.uint8(4)], axis=-1)
    numbers = halves.reshape(*pairs.shape[:-1], MXFP4_BLOCK)
    packed: Bytes = numbers[..., :16] | (numbers[..., 16:] << np.uint8(4))
    return packed


@dataclass(frozen=True)
class ExpertTensor:
    """One tensor: the `part` (gate, up, both or down) of all experts of a layer, or a vector of each."""

    layer: int
    part: str
    shape: tuple[int, ...]
    experts: Experts | None
    bias: Floats | None = None

    @property
    def name(self) -> str:
        return f"blk.{self.layer}.ffn_{self.part}_exps.{'weight' if self.bias is None else 'bias'}"


def is_of_experts(name: str) -> bool:
    return any(form.fullmatch(name) for form in (ONE_EXPERT, ALL_EXPERTS, ALL_EXPERTS_OF_GEMMA4))


def expert_tensors(weights: MergedWeights, count: int) -> Iterator[ExpertTensor]:
    """What a checkpoint's weights of experts become.

    Args:
        count: experts of a layer, as config.json says.

    Raises:
        GgufExportError: a layer has another number of experts, or they differ in shape.
    """
    if count and not any(is_of_experts(name) for name in weights.tensors):
        raise GgufExportError(
            f"config.json says {count} experts a layer, and the base has no weights of any.",
            hint="Download the model again.",
        )
    yield from _stacked(weights, count)
    for name, stored in weights.tensors.items():
        found = ALL_EXPERTS.fullmatch(name)
        if found and found[3] != "_scales":
            _require_count(name, stored.shape[0], count)
            yield from _of_all(weights, name, int(found[1]), found[2], found[3])
        if found := ALL_EXPERTS_OF_GEMMA4.fullmatch(name):
            _require_count(name, stored.shape[0], count)
            yield ExpertTensor(int(found[1]), found[2], stored.shape, WholeExperts(name, stored.shape[1]))


def _stacked(weights: MergedWeights, count: int) -> Iterator[ExpertTensor]:
    groups: dict[tuple[int, str], dict[int, str]] = {}
    for name in weights.tensors:
        if found := ONE_EXPERT.fullmatch(name):
            groups.setdefault((int(found[1]), PARTS.get(found[3], found[3])), {})[int(found[2])] = name
    for (layer, part), names in groups.items():
        ordered = tuple(names[expert] for expert in sorted(names))
        _require_count(ordered[0], len(names) if max(names) < count else max(names) + 1, count)
        shapes = {weights.tensors[name].shape for name in ordered}
        if len(shapes) > 1:
            raise GgufExportError(
                f"The experts of layer {layer} have different shapes ({part}).",
                hint="Download the model again.",
            )
        shape = shapes.pop()
        yield ExpertTensor(layer, part, (count, *shape), StackedExperts(ordered, shape[0]))


def _of_all(weights: MergedWeights, name: str, layer: int, matrix: str, form: str) -> Iterator[ExpertTensor]:
    stored = weights.tensors[name]
    parts = ["gate", "up"] if matrix == "gate_up" else ["down"]
    step = len(parts)
    for first, part in enumerate(parts):
        if form == "_bias":
            values = read_rows(stored, 0, stored.shape[0])[:, first::step]
            yield ExpertTensor(layer, part, values.shape, None, np.ascontiguousarray(values))
        elif form == "_blocks":
            count, rows, blocks, _ = stored.shape
            scales = weights.tensors[name.removesuffix("_blocks") + "_scales"]
            packed = PackedExperts(stored, scales, rows // step, first, step)
            yield ExpertTensor(layer, part, (count, rows // step, blocks * MXFP4_BLOCK), packed)
        else:
            count, inputs, outputs = stored.shape
            transposed = TransposedExperts(name, outputs // step, first, step)
            yield ExpertTensor(layer, part, (count, outputs // step, inputs), transposed)


def _require_count(name: str, found: int, count: int) -> None:
    if found != count:
        layer = name.partition("layers.")[2].partition(".")[0]
        raise GgufExportError(
            f"Layer {layer} has {found} experts; config.json says {count}.", hint="Download the model again."
        )


def experts_of(config: Config) -> int:
    """How many experts a layer has; 0 in dense models."""
    if not config.get("enable_moe_block", True):
        return 0
    named = ("num_local_experts", "n_routed_experts", "num_experts")
    return next((config[name] for name in named if config.get(name)), 0)
